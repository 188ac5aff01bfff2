"""Images in archives: what others save is loaded, what is saved others load, and nothing wrong gets in."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError, SandboxError
from pytest_sandbox_runtime.images.archive import load
from pytest_sandbox_runtime.images.digest import digest_of, hex_of
from pytest_sandbox_runtime.images.export import save
from pytest_sandbox_runtime.images.limits import Limits
from pytest_sandbox_runtime.images.manifest import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    layer_type,
)
from pytest_sandbox_runtime.images.packed import packing as packing_stream
from pytest_sandbox_runtime.images.platforms import Platform
from pytest_sandbox_runtime.images.pruning import disk_usage
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.store import Store
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.specs import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NAME = "docker.io/library/tiny:1"
PACKINGS = ("none", "gzip", "zstd")


def tar_of(files: Mapping[str, bytes | str]) -> bytes:
    """Return a tar of ``files``; one whose content is a string is a symbolic link."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for folder in sorted({str(above) for name in files for above in Path(name).parents if ".." not in name}):
            header = tarfile.TarInfo(folder)
            header.type, header.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(header)
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.mode = 0o644
            if isinstance(content, str):
                header.type, header.linkname = tarfile.SYMTYPE, content
                tar.addfile(header)
            else:
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    return sink.getvalue()


BASE = tar_of({"bin/sh": b"#!", "etc/motd": b"base"})
TOP = tar_of({"etc/issue": b"top", "usr/big": bytes(range(1, 251)) * 1200})


def pack(data: bytes, kind: str) -> bytes:
    sink = io.BytesIO()
    with packing_stream(sink, kind) as stream:
        stream.write(data)
    return sink.getvalue()


def config_of(*layers: bytes, **fields: Any) -> bytes:
    return ImageConfig(
        platform=fields.pop("platform", Platform.host()), diff_ids=tuple(map(digest_of, layers)), **fields
    ).to_bytes()


def oci_files(
    *layers: bytes, packing: str = "none", names: tuple[str | None, ...] = (NAME,), **fields: Any
) -> dict[str, bytes]:
    """Return the files of a layout with one image."""
    blobs = [pack(layer, packing) for layer in layers]
    config = config_of(*layers, **fields)
    manifest = Manifest(
        Descriptor.to(OCI_CONFIG, config), tuple(Descriptor.to(layer_type(packing), blob) for blob in blobs)
    ).to_bytes()
    bare = Descriptor.to(OCI_MANIFEST, manifest)
    index = Index(tuple(bare.named(name) if name else bare for name in names))
    files = {f"blobs/sha256/{hex_of(digest_of(blob))}": blob for blob in (*blobs, config, manifest)}
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index.to_bytes(), **files}


def docker_files(*layers: bytes, tags: list[str] | None = None, packing: str = "none") -> dict[str, bytes]:
    """Return the files as Docker 20.10 saves them, its manifest.json last."""
    config = config_of(*layers)
    config_name = f"{hex_of(digest_of(config))}.json"
    paths = [f"{hex_of(digest_of(layer))}/layer.tar" for layer in layers]
    entry = {"Config": config_name, "RepoTags": ["tiny:1"] if tags is None else tags, "Layers": paths}
    files = {path: pack(layer, packing) for path, layer in zip(paths, layers, strict=True)}
    return {**files, config_name: config, "manifest.json": json.dumps([entry]).encode()}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "store")) as store:
        yield store


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def files_below(root: str) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def files_of(store: Store, image: Descriptor) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for root in reversed(store.roots_of(store.images.manifest_of(image)[1])):
        found |= files_below(root)
    return found


def is_empty(store: Store) -> bool:
    places = ("layers", "builds", "images/blobs/sha256")
    hidden = [name for name in os.listdir(f"{store.path}/images") if name.startswith(".")]
    return (
        not store.images.index().manifests
        and not hidden
        and not any(os.listdir(f"{store.path}/{one}") for one in places)
    )


def child_of(action: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def end_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# Loading


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


# What is wrong


def refusal(store: Store, path: str, **how: Any) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        load(store, path, **how)
    assert path in caught.value.message
    assert is_empty(store)
    return caught.value


OCI, DOCKER = oci_files(BASE, TOP, packing="gzip"), docker_files(BASE, TOP)
TOP_BLOB = f"blobs/sha256/{hex_of(digest_of(pack(TOP, 'gzip')))}"
TOP_FILE = f"{hex_of(digest_of(TOP))}/layer.tar"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({**OCI, TOP_BLOB: pack(BASE, "gzip")}, "and should have"),
        ({**OCI, TOP_BLOB: pack(TOP, "gzip")[:-1]}, "bytes, and should have"),
        ({key: value for key, value in OCI.items() if key != TOP_BLOB}, f"it has no {TOP_BLOB}"),
        ({**OCI, "index.json": b"{"}, "its index.json is no JSON"),
        ({**OCI, "index.json": b'{"schemaVersion": 2, "manifests": []}'}, "it holds no image"),
        ({**OCI, "index.json": bytes(5 << 20)}, "index.json is larger than the 4194304 bytes"),
        ({**OCI, TOP_BLOB: "/etc/passwd"}, f"it has no {TOP_BLOB}"),
        ({**DOCKER, TOP_FILE: BASE}, "and should have"),
        ({**DOCKER, TOP_FILE: pack(TOP, "gzip")[:-9]}, "is truncated or corrupt"),
        ({key: value for key, value in DOCKER.items() if key != TOP_FILE}, f"it has no {TOP_FILE}"),
        ({**DOCKER, "manifest.json": b"{}"}, "its manifest.json is no array of objects"),
        ({**DOCKER, "manifest.json": b"[]"}, "it holds no image"),
        ({**DOCKER, "manifest.json": b"[{}]"}, r"its manifest.json: \[0\] has no Config"),
        ({**DOCKER, "manifest.json": b'[{"Config": "../../etc/passwd", "Layers": []}]'}, "it has no ../../etc/passwd"),
        ({"manifest.json": b"[]", "x/y": b""}, "holds no root file system"),
        ({"readme": b"x"}, "holds no root file system"),
        ({"bin/../../escaped": b"x"}, "has .. in it"),
    ],
)
def test_what_is_wrong_in_an_archive_is_told_and_nothing_stays(
    store: Store, tmp_path: Path, files: dict[str, bytes | str], why: str
) -> None:
    error = refusal(store, write(tmp_path / "image.tar", tar_of(files)))
    assert isinstance(error, ImageError)
    assert why.replace("\\", "") in error.message


def test_a_layer_whose_content_is_not_what_its_config_says_is_refused(store: Store, tmp_path: Path) -> None:
    files = oci_files(BASE, packing="gzip")
    forged = oci_files(TOP, packing="gzip", names=(NAME,))
    config = config_of(BASE)
    (layer,) = [name for name, content in forged.items() if content == pack(TOP, "gzip")]
    manifest = Manifest(
        Descriptor.to(OCI_CONFIG, config), (Descriptor.to(layer_type("gzip"), forged[layer]),)
    ).to_bytes()
    index = Index((Descriptor.to(OCI_MANIFEST, manifest).named(NAME),)).to_bytes()
    files |= {layer: forged[layer], f"blobs/sha256/{hex_of(digest_of(manifest))}": manifest, "index.json": index}
    error = refusal(store, write(tmp_path / "image.tar", tar_of(files)))
    assert f"unpacked, has the digest {digest_of(TOP)}, and should have {digest_of(BASE)}" in error.message


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is no tar"),
        (b"hello", "is no tar"),
        (bytes(100), "is no tar"),
        (bytes(range(256)) * 8, "is no tar"),
        (pack(b"hello", "gzip"), "is no tar"),
        (pack(tar_of(OCI), "gzip")[:-9], "is truncated or corrupt"),
        (pack(tar_of(OCI), "zstd")[:-5], "is truncated or corrupt"),
        (tar_of(OCI)[:3000], "image.tar"),
        (BASE[:700], "is truncated or corrupt"),
    ],
    ids=["nothing", "a word", "zeros", "noise", "gzip", "cut gzip", "cut zstd", "cut image", "cut root"],
)
def test_what_is_no_archive_is_told(store: Store, tmp_path: Path, data: bytes, why: str) -> None:
    assert why in refusal(store, write(tmp_path / "image.tar", data)).message


def test_what_cannot_be_read_is_told(store: Store, tmp_path: Path) -> None:
    assert "No such file" in refusal(store, str(tmp_path / "none")).message
    os.mkfifo(tmp_path / "pipe")
    assert "is neither a file nor a directory" in refusal(store, str(tmp_path / "pipe")).message
    (tmp_path / "empty").mkdir()
    assert "is no OCI image layout: it has no index.json" in refusal(store, str(tmp_path / "empty")).message


def test_a_bomb_is_refused_at_the_limit_which_can_be_raised(store: Store, tmp_path: Path) -> None:
    zeros = tar_of({"bin/zero": bytes(20_000_000)})
    limits = Limits(max_bytes=10_000_000)
    for data in (zeros, gzip.compress(zeros), tar_of(docker_files(zeros, packing="gzip")), tar_of(oci_files(zeros))):
        path = write(tmp_path / "bomb.tar", data)
        refused = refusal(store, path, limits=limits)
        assert "holds more than the 10000000 bytes that it may" in refused.message
        assert "pytest-sandbox load --max-bytes" in refused.hint
        with Store(str(tmp_path / f"let-off-{len(data)}")) as other:
            assert load(other, path, limits=Limits(max_bytes=30_000_000))


def test_links_in_a_circle_lead_nowhere(store: Store, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {**DOCKER, TOP_FILE: "layer2.tar", TOP_FILE.replace("layer", "layer2"): "layer.tar"}
    assert f"it has no {TOP_FILE}" in refusal(store, write(tmp_path / "image.tar", tar_of(files))).message


def test_a_header_that_claims_gigabytes_is_not_believed(store: Store, tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 33
    data = header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)
    assert "a header of" in refusal(store, write(tmp_path / "image.tar", data)).message


WHOLE = [tar_of(OCI), tar_of(DOCKER), tar_of(oci_files(BASE)), BASE]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    whole=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), max_size=4),
    cut=st.none() | st.integers(0, 20_000),
)
def test_a_changed_archive_is_loaded_or_an_image_error(
    tmp_path: Path, whole: bytes, changes: list[tuple[int, bytes]], cut: int | None
) -> None:
    data = bytearray(whole)
    for at, new in changes:
        data[at % len(data) :][: len(new)] = new
        data[at % len(data) : at % len(data) + len(new)] = new
    path = write(tmp_path / "image.tar", bytes(data[:cut]))
    shutil.rmtree(tmp_path / "fuzzed", ignore_errors=True)
    with Store(str(tmp_path / "fuzzed")) as store:
        message = ""
        try:
            load(store, path)
        except ImageError as error:
            message = error.message
        assert not message or (path in message and is_empty(store))
        for digest in store.images.digests():
            assert digest_of(Path(store.images.blob_path(digest)).read_bytes()) == digest


def test_a_kill_at_any_moment_leaves_the_store_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "image.tar", tar_of(oci_files(BASE, packing="gzip")))

    def work(place: str, step: int) -> None:
        count = iter(range(step))

        def hook(event: str, _arguments: object) -> None:
            if (event in ("open", "fcntl.flock") or event.startswith("os.")) and next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        load(Store(place), path)

    status, step = None, 0
    while status != 0:
        place = str(tmp_path / f"store{step}")
        status = end_of(child_of(lambda: work(place, step)))  # noqa: B023
        with Store(place) as store:
            for digest in store.images.digests():
                assert digest_of(Path(store.images.blob_path(digest)).read_bytes()) == digest
            for image in store.images.index().manifests:
                assert files_of(store, image) == {"bin/sh": b"#!", "etc/motd": b"base"}
            ((_, image),) = load(store, path)
            assert files_of(store, image) == {"bin/sh": b"#!", "etc/motd": b"base"}
            assert len(os.listdir(f"{place}/layers")) == 1
            assert not [name for name in os.listdir(f"{place}/images") if name.startswith(".")]
        step += 3
    assert step > 100


def in_namespace(action: Callable[[], object]) -> None:
    def inside() -> None:
        unshare(CloneFlag.NEWNS)
        mount("none", "/", flags=MountFlag.REC | MountFlag.PRIVATE)
        action()

    assert end_of(child_of(inside)) == 0


@pytest.mark.needs("root")
@pytest.mark.parametrize("kibibytes", [150, 400, 600])
def test_a_full_disk_is_an_error_with_its_mend_and_leaves_nothing(tmp_path: Path, kibibytes: int) -> None:
    path = write(tmp_path / "image.tar", tar_of(oci_files(BASE, TOP)))
    (tmp_path / "small").mkdir()

    def check() -> None:
        mount("tmpfs", str(tmp_path / "small"), "tmpfs", options=f"size={kibibytes}k")
        with Store(str(tmp_path / "small/store")) as store:
            with pytest.raises(SandboxError, match="No space left on device") as caught:
                load(store, path)
            assert caught.value.hint.startswith("free some space")
            assert is_empty(store)

    in_namespace(check)


@pytest.mark.needs("root")
def test_a_read_only_store_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "image.tar", tar_of(oci_files(BASE)))
    (tmp_path / "place").mkdir()

    def check() -> None:
        mount("tmpfs", str(tmp_path / "place"), "tmpfs")
        place = str(tmp_path / "place/store")
        with Store(place) as store:
            load(store, write(tmp_path / "other.tar", tar_of(oci_files(TOP))))
        mount("none", str(tmp_path / "place"), flags=MountFlag.REMOUNT | MountFlag.RDONLY)
        with pytest.raises(SandboxError, match="cannot be used: Read-only file system") as caught:
            load(Store(place), path)
        assert "PYTEST_SANDBOX_HOME" in caught.value.hint
        assert [one.name for one in Store(place).images.index().manifests] == [NAME]

    in_namespace(check)


def test_memory_does_not_grow_with_the_layer(tmp_path: Path) -> None:
    with open(tmp_path / "layer.tar", "wb") as file:
        header = tarfile.TarInfo("bin/large")
        header.size = 300 << 20
        file.write(header.tobuf())
        file.truncate(512 + header.size + 1024)
    subprocess.run(["gzip", "-1", "-k", tmp_path / "layer.tar"], check=True)

    def check(name: str) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with Store(str(tmp_path / "store")) as store:
            ((_, image),) = load(store, str(tmp_path / name))
            save(store.images, [(None, image)], str(tmp_path / "saved.tar"), format="docker")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10

    for name in ("layer.tar", "layer.tar.gz"):
        assert end_of(child_of(lambda name=name: check(name))) == 0  # type: ignore[misc]


# Saving


@pytest.mark.parametrize("compression", PACKINGS)
@pytest.mark.parametrize("form", ["oci", "docker"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_what_is_saved_is_loaded_as_the_same(
    store: Store, tmp_path: Path, form: str, compression: str, packing: str
) -> None:
    load(store, write(tmp_path / "image.tar", tar_of(oci_files(BASE, TOP, packing=packing))))
    image = store.images.index().manifests[0].bare()
    target = str(tmp_path / "saved.tar")
    save(store.images, [(Reference.parse(NAME), image)], target, format=form, compression=compression)
    with Store(str(tmp_path / "other")) as other:
        ((reference, again),) = load(other, target)
        assert str(reference) == NAME
        assert files_of(other, again) == files_of(store, image)
        if form == "oci" or packing == "none":
            assert again.digest == image.digest
        assert other.images.manifest_of(again)[1].config == store.images.manifest_of(image)[1].config


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_the_same_image_is_saved_as_the_same_bytes(store: Store, tmp_path: Path, form: str) -> None:
    ((reference, image),) = load(store, write(tmp_path / "image.tar", tar_of(oci_files(BASE, TOP))))
    for name in ("one", "two"):
        save(store.images, [(reference, image)], str(tmp_path / name), format=form, compression="gzip")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_archive_is_there_when_it_is_whole_and_as_private_as_the_umask_says(store: Store, tmp_path: Path) -> None:
    ((reference, image),) = load(store, write(tmp_path / "image.tar", tar_of(oci_files(BASE))))
    (tmp_path / "out").mkdir()
    target = write(tmp_path / "out/saved.tar", b"old")
    os.unlink(store.images.blob_path(digest_of(BASE)))
    with pytest.raises(ImageError, match="the store lacks the blob"):
        save(store.images, [(reference, image)], target)
    assert files_below(str(tmp_path / "out")) == {"saved.tar": b"old"}
    load(store, str(tmp_path / "image.tar"))
    before = os.umask(0o027)
    try:
        save(store.images, [(reference, image)], target)
    finally:
        os.umask(before)
    assert os.stat(target).st_mode & 0o777 == 0o640
    with pytest.raises(SandboxError, match="the archive .*none/x cannot be used: No such file"):
        save(store.images, [(reference, image)], str(tmp_path / "none/x"))


def test_an_unknown_format_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="'ova' is no format of archives"):
        save(store.images, [], str(tmp_path / "x"), format="ova")


# The real tools


@pytest.fixture(scope="module")
def docker(dockerd: Path) -> list[str]:
    """The command line of a Docker client."""
    return ["docker", "--host", f"unix://{dockerd}"]


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[list[str]]:
    """The command line of a podman with a storage of its own."""
    with tempfile.TemporaryDirectory(prefix="podman-") as run_root:  # which may not be longer than 50 characters
        # Apart, as other tests look at what the host has mounted.
        apart = ["unshare", "--mount"]
        yield [*apart, "podman", "--root", f"{tmp_path}/podman", "--runroot", run_root, "--storage-driver", "vfs"]


def run(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Descriptor:
    path = write(tmp_path / "image.tar", tar_of(oci_files(BASE, TOP, packing="gzip", config_json='{"Cmd":["sh"]}')))
    return load(store, path)[0][1]


@pytest.mark.needs("docker", "root")
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_docker_loads_what_is_saved(
    docker: list[str], store: Store, tmp_path: Path, image: Descriptor, compression: str
) -> None:
    target = str(tmp_path / "saved.tar")
    save(store.images, [(Reference.parse(NAME), image)], target, format="docker", compression=compression)
    assert "Loaded image: tiny:1" in run(*docker, "load", "-i", target)
    (said,) = json.loads(run(*docker, "inspect", "tiny:1"))
    assert said["Id"] == store.images.manifest_of(image)[1].config.digest
    assert said["RootFS"]["Layers"] == [digest_of(BASE), digest_of(TOP)]
    assert said["Config"]["Cmd"] == ["sh"]
    run(*docker, "rmi", "tiny:1")


@pytest.mark.needs("docker", "root")
def test_what_docker_saves_is_loaded(docker: list[str], store: Store, tmp_path: Path) -> None:
    run(*docker, "import", write(tmp_path / "base.tar", BASE), "other:2")
    run(*docker, "save", "-o", str(tmp_path / "saved.tar"), "other:2")
    ((reference, image),) = load(store, str(tmp_path / "saved.tar"))
    assert str(reference) == "docker.io/library/other:2"
    (said,) = json.loads(run(*docker, "inspect", "other:2"))
    assert store.images.manifest_of(image)[1].config.digest == said["Id"]
    assert files_of(store, image) == {"bin/sh": b"#!", "etc/motd": b"base"}


@pytest.mark.needs("podman", "root")
@pytest.mark.parametrize(("form", "compression"), [("oci", "none"), ("oci", "zstd"), ("docker", "none")])
def test_podman_loads_what_is_saved(
    podman: list[str], store: Store, tmp_path: Path, image: Descriptor, form: str, compression: str
) -> None:
    target = str(tmp_path / "saved.tar")
    save(store.images, [(Reference.parse(NAME), image)], target, format=form, compression=compression)
    assert f"Loaded image: {NAME}" in run(*podman, "load", "-i", target)
    (said,) = json.loads(run(*podman, "image", "inspect", NAME))
    assert f"sha256:{said['Id']}" == store.images.manifest_of(image)[1].config.digest
    assert said["RootFS"]["Layers"] == [digest_of(BASE), digest_of(TOP)]


@pytest.mark.needs("podman", "root")
@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "oci-dir"])
def test_what_podman_saves_is_loaded(podman: list[str], store: Store, tmp_path: Path, form: str) -> None:
    run(*podman, "import", write(tmp_path / "base.tar", BASE), NAME)
    run(*podman, "save", "--format", form, "-o", str(tmp_path / "saved"), NAME)
    ((reference, image),) = load(store, str(tmp_path / "saved"))
    assert str(reference) == NAME
    assert files_of(store, image) == {"bin/sh": b"#!", "etc/motd": b"base"}


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize(
    ("form", "transport"),
    [
        # Debian 12's skopeo unpacks it, owners and all.
        pytest.param("oci", "oci-archive", marks=pytest.mark.needs("root")),
        ("docker", "docker-archive"),
    ],
)
def test_skopeo_reads_what_is_saved(store: Store, tmp_path: Path, image: Descriptor, form: str, transport: str) -> None:
    save(store.images, [(Reference.parse(NAME), image)], str(tmp_path / "saved"), format=form)
    run("skopeo", "copy", f"{transport}:{tmp_path}/saved", f"oci-archive:{tmp_path}/copied:{NAME}")
    with Store(str(tmp_path / "other")) as other:
        ((reference, again),) = load(other, str(tmp_path / "copied"))
        assert str(reference) == NAME
        assert files_of(other, again) == files_of(store, image)


def test_what_went_in_comes_out_of_a_store_that_was_pruned(store: Store, tmp_path: Path) -> None:
    ((reference, image),) = load(store, write(tmp_path / "image.tar", tar_of(oci_files(BASE, TOP))))
    before = files_of(store, image)
    store.close()
    from pytest_sandbox_runtime.images.pruning import prune

    prune(store, older_than=0, max_bytes=0)
    assert disk_usage(store).layers == 0
    assert files_of(store, image) == before
    assert reference is not None
