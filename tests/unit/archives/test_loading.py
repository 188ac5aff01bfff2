"""Images in archives of each form, and in each packing, are loaded as what they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.archive import load
from pytest_sandbox_runtime.images.digest import digest_of, hex_of
from pytest_sandbox_runtime.images.manifest import OCI_INDEX, OCI_LAYER, Descriptor, Index
from pytest_sandbox_runtime.images.platforms import Platform
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.store import Store
from pytest_sandbox_runtime.specs import Image
from tests.unit.archives.images import BASE, NAME, PACKINGS, TOP, config_of, docker_files, oci_files, pack
from tests.unit.archives.stored import files_of, write
from tests.unit.tars import tar_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("outer", [*PACKINGS, "bzip2"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_an_oci_archive_is_loaded_however_it_is_packed(store: Store, tmp_path: Path, outer: str, packing: str) -> None:
    data = tar_of(oci_files(BASE, TOP, packing=packing))
    if outer == "bzip2":
        data = subprocess.run(["bzip2", "-c"], input=data, capture_output=True, check=True).stdout
    else:
        data = pack(data, outer)
    ((reference, image),) = load(store, write(tmp_path / "image.tar", data))
    assert str(reference) == NAME
    assert set(files_of(store, image)) == {"bin/sh", "etc/motd", "etc/issue", "usr/big"}
    assert store.images.resolve(Reference.parse("tiny:1")) is not None
    assert set(store.layers.all()) == {digest_of(BASE), digest_of(TOP)}


def test_a_layouts_directory_is_loaded(store: Store, tmp_path: Path) -> None:
    for name, content in oci_files(BASE).items():
        (tmp_path / "layout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "layout" / name).write_bytes(content)
    ((reference, image),) = load(store, str(tmp_path / "layout"))
    assert str(reference) == NAME
    assert files_of(store, image) == {"bin/sh": b"#!", "etc/motd": b"base"}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("outer", PACKINGS)
def test_a_docker_archive_is_loaded_and_its_layers_kept_plain(
    store: Store, tmp_path: Path, packing: str, outer: str
) -> None:
    data = pack(tar_of(docker_files(BASE, TOP, packing=packing)), outer)
    ((reference, image),) = load(store, write(tmp_path / "image.tar", data))
    assert str(reference) == NAME
    manifest = store.images.manifest_of(image)[1]
    assert [layer.digest for layer in manifest.layers] == [digest_of(BASE), digest_of(TOP)]
    assert manifest.config.digest == digest_of(config_of(BASE, TOP))
    assert files_of(store, image)["etc/issue"] == b"top"


def test_newer_dockers_archives_have_blobs_and_links(store: Store, tmp_path: Path) -> None:
    config, digest = config_of(BASE), hex_of(digest_of(BASE))
    entry = {
        "Config": f"blobs/sha256/{hex_of(digest_of(config))}",
        "RepoTags": None,
        "Layers": ["1" * 64 + "/layer.tar"],
    }
    files: dict[str, bytes | str] = {
        entry["Config"]: config,  # type: ignore[dict-item]
        f"blobs/sha256/{digest}": BASE,
        "1" * 64 + "/layer.tar": f"../blobs/sha256/{digest}",
        "manifest.json": json.dumps([entry]).encode(),
    }
    ((reference, image),) = load(store, write(tmp_path / "image.tar", tar_of(files)))
    assert reference is None
    assert store.images.index().manifests == (image,)
    assert files_of(store, image)["bin/sh"] == b"#!"


def test_several_images_and_names_of_one_are_loaded(store: Store, tmp_path: Path) -> None:
    one, two = docker_files(BASE, tags=["a:1", "localhost:5000/b"]), docker_files(BASE, TOP, tags=[])
    entries = json.loads(one["manifest.json"]) + json.loads(two["manifest.json"])
    files = {**one, **two, "manifest.json": json.dumps(entries).encode()}
    loaded = load(store, write(tmp_path / "image.tar", tar_of(files)))
    assert [str(reference) for reference, _ in loaded] == ["docker.io/library/a:1", "localhost:5000/b", "None"]
    assert loaded[0][1] == loaded[1][1] != loaded[2][1]
    assert len(store.images.index().manifests) == 3


@pytest.mark.parametrize(("outer", "name"), [("none", "root.tar"), ("gzip", "root.tar.gz"), ("zstd", "root.tar.zst")])
def test_a_root_file_system_becomes_an_image_of_one_layer(store: Store, tmp_path: Path, outer: str, name: str) -> None:
    ((reference, image),) = load(store, write(tmp_path / name, pack(BASE, outer)))
    assert reference is None
    manifest = store.images.manifest_of(image)[1]
    assert [(layer.media_type, layer.digest) for layer in manifest.layers] == [(OCI_LAYER, digest_of(BASE))]
    config = store.images.config_of(manifest)
    assert (config.platform, config.diff_ids) == (Platform.host(), (digest_of(BASE),))
    assert files_of(store, image) == {"bin/sh": b"#!", "etc/motd": b"base"}
    assert (store.root_of(Image.archive(tmp_path / name)),) == store.roots_of(manifest)


def test_the_same_root_file_system_is_the_same_image_however_packed(store: Store, tmp_path: Path) -> None:
    images = [load(store, write(tmp_path / f"root{one}", pack(BASE, one)))[0][1] for one in PACKINGS]
    assert len(set(images)) == 1


def test_what_is_there_is_not_written_again(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "image.tar", tar_of(oci_files(BASE, TOP)))
    first = load(store, path)
    inodes = [os.stat(store.images.blob_path(digest)).st_ino for digest in store.images.digests()]
    assert load(store, path) == first
    assert [os.stat(store.images.blob_path(digest)).st_ino for digest in store.images.digests()] == inodes


def test_of_several_platforms_one_is_loaded(store: Store, tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    entries = []
    for text in ("linux/arm64", "linux/s390x"):
        one = oci_files(BASE, names=(None,), platform=Platform.parse(text))
        (entry,) = json.loads(one.pop("index.json"))["manifests"]
        entries.append({**entry, "platform": Platform.parse(text).as_dict()})
        files.update(one)
    # As buildkit does: a document about the image, which is no image.
    entries.append({**entries[0], "platform": {"os": "unknown", "architecture": "unknown"}})
    inner = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    files[f"blobs/sha256/{hex_of(digest_of(inner))}"] = inner
    files["index.json"] = Index((Descriptor.to(OCI_INDEX, inner).named(NAME),)).to_bytes()
    del files[f"blobs/sha256/{entries[0]['digest'][7:]}"]  # and the other platform's blobs may be missing
    path = write(tmp_path / "image.tar", tar_of(files))
    ((_, image),) = load(store, path, platform=Platform.parse("linux/s390x"))
    assert image.digest == entries[1]["digest"]
    with pytest.raises(
        ImageError, match="the image is not for linux/riscv64, but for linux/arm64, linux/s390x, unknown"
    ):
        load(store, path, platform=Platform.parse("linux/riscv64"))


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("latest", None),
        ("debian:12", "docker.io/library/debian:12"),
        ("ghcr.io/a/b", "ghcr.io/a/b"),
        ("No: Name", None),
    ],
)
def test_a_word_alone_is_a_tag_and_no_name(store: Store, tmp_path: Path, given_name: str, expected: str | None) -> None:
    ((reference, _),) = load(store, write(tmp_path / "image.tar", tar_of(oci_files(BASE, names=(given_name,)))))
    assert (str(reference) if reference else None) == expected


def test_the_one_image_of_an_archive_is_found_and_remembered(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "image.tar", tar_of(oci_files(BASE)))
    while os.stat(path).st_ctime_ns > os.stat(write(tmp_path / "now", b"")).st_ctime_ns - 25_000_000:
        pass  # the times of files move on in jiffies
    image = store.image_in(path)
    assert store.images.index().manifests == ()
    with Store(store.path) as again:
        opened: list[object] = []
        sys.addaudithook(lambda event, arguments: opened.append(arguments[0]) if event == "open" else None)
        assert again.image_in(path) == image
        assert sum(one == path for one in opened) == 1


def test_of_several_images_none_is_the_one(store: Store, tmp_path: Path) -> None:
    one, two = docker_files(BASE, tags=["a:1"]), docker_files(TOP, tags=["b:1"])
    entries = json.loads(one["manifest.json"]) + json.loads(two["manifest.json"])
    path = write(tmp_path / "image.tar", tar_of({**one, **two, "manifest.json": json.dumps(entries).encode()}))
    with pytest.raises(
        ImageError, match="holds several images, and one is needed: docker.io/library/a:1, docker.io/library/b:1"
    ):
        store.image_in(path)


def test_an_image_with_two_names_is_one_image(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "image.tar", tar_of(docker_files(BASE, tags=["a:1", "b:1"])))
    assert store.image_in(path).size > 0


def test_a_layer_that_an_image_has_twice_is_one_directory_at_its_higher_place(store: Store, tmp_path: Path) -> None:
    ((_, image),) = load(store, write(tmp_path / "image.tar", tar_of(oci_files(BASE, TOP, BASE))))
    roots = store.roots_of(store.images.manifest_of(image)[1])
    assert [os.path.basename(root) for root in roots] == [hex_of(digest_of(BASE)), hex_of(digest_of(TOP))]
