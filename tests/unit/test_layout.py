"""The images on disk: an OCI image layout that other tools read, whole whenever somebody is killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.layout import Layout, canonical_name
from pytest_sandbox_runtime.images.leases import Leases
from pytest_sandbox_runtime.images.manifest import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
)
from pytest_sandbox_runtime.images.platforms import Platform
from pytest_sandbox_runtime.images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.images.leases import Lease


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    (tmp_path / "leases").mkdir()
    return Leases(str(tmp_path / "leases"))


@pytest.fixture
def lease(leases: Leases) -> Lease:
    return leases.take()


@pytest.fixture
def layout(tmp_path: Path, leases: Leases) -> Layout:
    return Layout(str(tmp_path / "images"), str(tmp_path / "index.lock"), leases)


def again(layout: Layout) -> Layout:
    above = Path(layout.path).parent
    return Layout(layout.path, str(above / "index.lock"), Leases(str(above / "leases")))


def add_image(layout: Layout, lease: Lease, content: bytes = bytes(1024), platform: str = "linux/amd64") -> Descriptor:
    layer = Descriptor(OCI_LAYER, *layout.add(io.BytesIO(content), lease))
    config = ImageConfig(platform=Platform.parse(platform), diff_ids=(layer.digest,))
    manifest = Manifest(layout.add_bytes(config.to_bytes(), OCI_CONFIG, lease), (layer,))
    return layout.add_bytes(manifest.to_bytes(), OCI_MANIFEST, lease)


def name(text: str) -> Reference:
    return Reference.parse(text)


def names(layout: Layout) -> list[str | None]:
    return [canonical_name(one) for one in layout.index().manifests]


def remains(layout: Layout) -> list[str]:
    return [one for one in os.listdir(layout.path) if one.startswith(".")]


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


def test_an_empty_layout_is_what_the_image_spec_says(layout: Layout) -> None:
    path = Path(layout.path)
    assert json.loads((path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((path / "index.json").read_text())["manifests"] == []
    assert (path / "blobs/sha256").is_dir()
    assert layout.index() == Index()


def test_a_blob_is_stored_under_its_digest(layout: Layout, lease: Lease) -> None:
    digest, size = layout.add(io.BytesIO(b"hello"), lease)
    assert (digest, size) == (digest_of(b"hello"), 5)
    assert Path(layout.blob_path(digest)).read_bytes() == b"hello"
    assert layout.digests() == [digest]
    assert layout.size(digest) == 5
    assert layout.has(digest, 5, lease)
    assert not layout.has(digest, 6, lease)
    assert layout.read(Descriptor("x", digest, 5)) == b"hello"
    with layout.open(Descriptor("x", digest, 5)) as blob:
        assert blob.read() == b"hello"
    layout.delete(digest)
    layout.delete(digest)
    assert layout.digests() == []
    assert layout.size(digest) is None


@pytest.mark.parametrize(
    ("digest", "size", "why"),
    [
        (digest_of(b"other"), None, "has the digest"),
        (None, 4, "holds more than the 4 bytes"),
        (None, 6, "has 5 bytes, and should have 6"),
    ],
)
def test_a_blob_that_is_not_what_it_should_be_is_not_stored(
    layout: Layout, lease: Lease, digest: str | None, size: int | None, why: str
) -> None:
    with pytest.raises(ImageError, match=why):
        layout.add(io.BytesIO(b"hello"), lease, digest=digest, size=size)
    assert layout.digests() == []
    assert remains(layout) == []


def test_a_blob_that_is_missing_or_damaged_is_told(layout: Layout, lease: Lease) -> None:
    descriptor = layout.add_bytes(b"hello", "x", lease)
    Path(layout.blob_path(descriptor.digest)).write_bytes(b"hellO")
    with pytest.raises(ImageError, match=f"the blob {descriptor.digest} in the store is damaged"):
        layout.read(descriptor)
    Path(layout.blob_path(descriptor.digest)).write_bytes(b"")
    with pytest.raises(ImageError, match="has 0 bytes, and should have 5") as caught:
        layout.open(descriptor)
    assert "load, pull or build" in caught.value.hint
    layout.delete(descriptor.digest)
    with pytest.raises(ImageError, match="the store lacks the blob"):
        layout.open(descriptor)
    assert layout.add_bytes(b"hello", "x", lease) == descriptor
    assert layout.read(descriptor) == b"hello"


def test_a_blob_cut_by_a_lost_machine_is_written_again(layout: Layout, lease: Lease) -> None:
    descriptor = layout.add_bytes(b"hello", "x", lease)
    Path(layout.blob_path(descriptor.digest)).write_bytes(b"")
    assert layout.add_bytes(b"hello", "x", lease) == descriptor
    assert layout.read(descriptor) == b"hello"


def test_a_large_document_is_refused_unread(layout: Layout) -> None:
    with pytest.raises(ImageError, match="has 4194305 bytes, and may have 4194304"):
        layout.read(Descriptor(OCI_MANIFEST, digest_of(b""), (4 << 20) + 1))


def test_an_image_is_found_by_its_name(layout: Layout, lease: Lease) -> None:
    image = add_image(layout, lease)
    layout.tag(name("debian:12"), image, lease)
    layout.tag(name("ghcr.io/a/b"), image, lease)
    assert names(layout) == ["docker.io/library/debian:12", "ghcr.io/a/b:latest"]
    for text in ("debian:12", "docker.io/library/debian:12", f"debian@{image.digest}", "ghcr.io/a/b"):
        found = layout.resolve(name(text))
        assert found is not None
        assert found.bare() == image
    assert layout.resolve(name("debian")) is None
    assert layout.resolve(name("debian@" + digest_of(b"other"))) is None


def test_a_name_moves_and_its_image_stays_without_one(layout: Layout, lease: Lease) -> None:
    first, second = add_image(layout, lease, b"1"), add_image(layout, lease, b"2")
    layout.tag(name("a"), first, lease)
    layout.tag(name("a"), second, lease)
    assert names(layout) == [None, "docker.io/library/a:latest"]
    assert layout.index().manifests[0] == first
    layout.tag(name("b"), first, lease)
    assert names(layout) == ["docker.io/library/a:latest", "docker.io/library/b:latest"]
    layout.tag(name("b"), second, lease)
    layout.tag(name("a"), second, lease)
    assert [one.digest for one in layout.index().manifests] == [first.digest, second.digest, second.digest]


def test_an_image_without_a_name_is_there_once(layout: Layout, lease: Lease) -> None:
    image = add_image(layout, lease)
    layout.put(image)
    layout.put(image)
    assert layout.index().manifests == (image,)
    layout.tag(name("a"), image, lease)
    layout.put(image)
    assert names(layout) == ["docker.io/library/a:latest"]


def test_a_name_is_taken_away_once(layout: Layout, lease: Lease) -> None:
    layout.tag(name("a"), add_image(layout, lease), lease)
    assert layout.remove(name("a"))
    assert not layout.remove(name("a"))
    assert layout.index() == Index()


def test_what_is_not_there_gets_no_name(layout: Layout, lease: Lease) -> None:
    with pytest.raises(ImageError, match="the store lacks the image"):
        layout.tag(name("a"), Descriptor(OCI_MANIFEST, digest_of(b""), 5), lease)


def test_of_several_platforms_the_named_one_is_found(layout: Layout, lease: Lease) -> None:
    found = [add_image(layout, lease, platform=one) for one in ("linux/arm64", "linux/s390x")]
    platforms = [Platform.parse(one) for one in ("linux/arm64", "linux/s390x")]
    entries = tuple(
        Descriptor(one.media_type, one.digest, one.size, platform)
        for one, platform in zip(found, platforms, strict=True)
    )
    index = Index(entries)
    inner = layout.add_bytes(index.to_bytes(), index.media_type, lease)
    outer = layout.add_bytes(Index((inner,)).to_bytes(), index.media_type, lease)
    descriptor, manifest = layout.manifest_of(outer, Platform.parse("linux/s390x"))
    assert descriptor.digest == found[1].digest
    assert layout.config_of(manifest).platform.architecture == "s390x"
    assert set(layout.reach(outer.digest)) >= {outer.digest, inner.digest, *(one.digest for one in found)}


def test_indexes_in_indexes_end(layout: Layout, lease: Lease) -> None:
    descriptor = add_image(layout, lease)
    for _ in range(5):
        index = Index((descriptor,))
        descriptor = layout.add_bytes(index.to_bytes(), index.media_type, lease)
    with pytest.raises(ImageError, match="lies in more than 4 indexes"):
        layout.manifest_of(descriptor)


def test_a_manifest_and_a_config_of_different_lengths_are_refused(layout: Layout, lease: Lease) -> None:
    config = layout.add_bytes(ImageConfig(diff_ids=(digest_of(b""),)).to_bytes(), OCI_CONFIG, lease)
    with pytest.raises(ImageError, match="has 1 layers, and its manifest has 0"):
        layout.config_of(Manifest(config))


def test_a_damaged_index_is_an_error_that_names_it(layout: Layout) -> None:
    index = Path(layout.path, "index.json")
    index.write_text("{")
    with pytest.raises(ImageError, match="index.json is no JSON"):
        layout.index()
    index.unlink()
    with pytest.raises(ImageError, match="has lost its index.json"):
        layout.index()


def test_names_that_other_tools_give_are_kept(layout: Layout, lease: Lease) -> None:
    image = add_image(layout, lease)
    note: dict[str, Any] = {**image.as_dict(), "annotations": {"org.opencontainers.image.ref.name": "No Reference"}}
    Path(layout.path, "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [note]}))
    layout.tag(name("a"), image, lease)
    assert names(layout) == ["No Reference", "docker.io/library/a:latest"]


def test_many_processes_give_names_at_once(layout: Layout, lease: Lease) -> None:
    def work(number: int) -> None:
        mine = again(layout)
        with mine._leases.take() as own:
            for turn in range(5):
                image = add_image(mine, own, b"%d %d" % (number, turn))
                mine.tag(name(f"n{number}:{turn}"), image, own)

    children = [child_of(lambda number=number: work(number)) for number in range(4)]  # type: ignore[misc]
    assert [end_of(child) for child in children] == [0] * 4
    assert sorted(map(str, names(layout))) == [
        f"docker.io/library/n{number}:{turn}" for number in range(4) for turn in range(5)
    ]
    assert remains(layout) == []


def test_what_a_dead_writer_left_goes_and_what_a_living_one_writes_stays(layout: Layout, leases: Leases) -> None:
    ready, told = os.pipe()

    def die() -> None:
        blob = layout.begin(leases.take())
        blob.write(b"hello")
        os.write(told, b"x")
        os.kill(os.getpid(), signal.SIGKILL)

    assert end_of(child_of(die)) == -signal.SIGKILL
    assert os.read(ready, 1) == b"x"
    (left,) = remains(layout)
    with again(layout).begin(leases.take()) as blob:
        (mine,) = remains(layout)
        assert mine != left
        again(layout).add(io.BytesIO(b"x"), leases.take())
        assert remains(layout) == [mine]
        blob.write(b"hello")
        assert blob.commit() == (digest_of(b"hello"), 5)
    assert remains(layout) == []


def test_a_blob_is_written_on_from_where_it_was_cut(layout: Layout, leases: Leases) -> None:
    digest, lease = digest_of(b"hello"), leases.take()
    with layout.resume(digest, lease) as blob:
        blob.write(b"he")
    (left,) = remains(layout)
    assert left == f".cut-{digest.partition(':')[2]}"
    with again(layout).begin(leases.take()):
        assert left in remains(layout)
    with again(layout).resume(digest, lease) as blob:
        assert blob.size == 2
        blob.write(b"llo")
        assert blob.commit(digest, 5) == (digest, 5)
    assert remains(layout) == []
    assert Path(layout.blob_path(digest)).read_bytes() == b"hello"


def test_what_was_cut_can_be_forgotten(layout: Layout, lease: Lease) -> None:
    digest = digest_of(b"hello")
    with layout.resume(digest, lease) as blob:
        blob.write(b"wrong")
        blob.restart()
        blob.write(b"hello")
        assert blob.commit(digest) == (digest, 5)
    with layout.resume(digest, lease) as blob:
        blob.write(b"wrong")
        blob.restart()
    assert remains(layout) == []
    with layout.resume(digest, lease) as blob:
        blob.write(b"wrong")
    layout.sweep()
    assert remains(layout) == []


def test_who_writes_the_same_blob_is_waited_for(layout: Layout, lease: Lease) -> None:
    digest = digest_of(b"hello")
    begun, told = os.pipe()

    def wait() -> None:
        mine = again(layout)
        own = mine._leases.take()
        os.write(told, b"x")
        with mine.resume(digest, own) as blob:
            assert blob.size == 0
            assert mine.has(digest, 5, own)

    with layout.resume(digest, lease) as blob:
        blob.write(b"hello")
        child = child_of(wait)
        assert os.read(begun, 1) == b"x"
        blob.commit(digest)
    assert end_of(child) == 0
    assert remains(layout) == []


def test_a_kill_at_any_moment_leaves_the_layout_whole(tmp_path: Path) -> None:
    def work(path: Path, step: int) -> None:
        count = iter(range(step))

        def hook(event: str, _arguments: object) -> None:
            if (event in ("open", "fcntl.flock") or event.startswith("os.")) and next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        leases = Leases(str(path / "leases"))
        layout = Layout(str(path / "images"), str(path / "index.lock"), leases)
        with leases.take() as lease:
            layout.tag(name("a"), add_image(layout, lease), lease)

    for step in range(300):
        path = tmp_path / str(step)
        (path / "leases").mkdir(parents=True)
        status = end_of(child_of(lambda: work(path, step)))  # noqa: B023
        leases = Leases(str(path / "leases"))
        layout = Layout(str(path / "images"), str(path / "index.lock"), leases)
        for digest in layout.digests():
            assert digest_of(Path(layout.blob_path(digest)).read_bytes()) == digest
        for image in layout.index().manifests:
            assert all(layout.size(digest) is not None for digest in layout.reach(image.digest))
        with leases.take() as lease:
            layout.tag(name("a"), add_image(layout, lease), lease)
        assert remains(layout) == []
        if status == 0:
            break
    assert status == 0
    assert step > 30


def tar_of(tmp_path: Path) -> bytes:
    (tmp_path / "tree/bin").mkdir(parents=True)
    (tmp_path / "tree/bin/hello").write_text("hello\n")
    return subprocess.run(["tar", "-C", tmp_path / "tree", "-c", "."], capture_output=True, check=True).stdout


@pytest.mark.needs("skopeo")
def test_skopeo_reads_the_layout_as_it_is(layout: Layout, lease: Lease, tmp_path: Path) -> None:
    image = add_image(layout, lease, tar_of(tmp_path))
    layout.tag(name("debian:12"), image, lease)
    place = f"oci:{layout.path}:docker.io/library/debian:12"
    said = subprocess.run(["skopeo", "inspect", place], capture_output=True, check=True).stdout
    assert json.loads(said)["Digest"] == image.digest
    subprocess.run(["skopeo", "copy", "--quiet", "--preserve-digests", place, f"oci:{tmp_path}/copy:x"], check=True)
    copied = json.loads((tmp_path / "copy/index.json").read_text())["manifests"][0]["digest"]
    assert copied == image.digest


@pytest.mark.needs("skopeo")
def test_what_skopeo_puts_in_is_found(layout: Layout, lease: Lease, tmp_path: Path) -> None:
    layout.tag(name("debian:12"), add_image(layout, lease, tar_of(tmp_path)), lease)
    place = f"oci:{layout.path}:docker.io/library/debian:12"
    subprocess.run(["skopeo", "copy", "--quiet", place, f"oci:{layout.path}:docker.io/library/other:1"], check=True)
    assert layout.resolve(name("other:1")) is not None
    assert layout.resolve(name("debian:12")) is not None


@pytest.mark.needs("umoci", "root")
def test_umoci_unpacks_the_layout_as_it_is(layout: Layout, lease: Lease, tmp_path: Path) -> None:
    layout.tag(name("debian:12"), add_image(layout, lease, tar_of(tmp_path)), lease)
    place = f"{layout.path}:docker.io/library/debian:12"
    subprocess.run(["umoci", "unpack", "--image", place, tmp_path / "bundle"], check=True, capture_output=True)
    assert (tmp_path / "bundle/rootfs/bin/hello").read_text() == "hello\n"
