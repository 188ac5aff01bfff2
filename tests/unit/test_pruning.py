"""Pruning: what nothing leads to goes, and never what is in use, by whomever, until its user is done or dead."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.images.digest import digest_of, hex_of
from pytest_sandbox_runtime.images.leases import Leases
from pytest_sandbox_runtime.images.manifest import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Manifest,
)
from pytest_sandbox_runtime.images.pruning import collect, disk_usage, prune
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.store import Store
from tests.unit.children import child_of, end_of

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.leases import Lease


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def store(path: str) -> Store:
    return Store(path)


def layer_tar(name: str, size: int = 1000) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        folder = tarfile.TarInfo("bin")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        header = tarfile.TarInfo(f"bin/{name}")
        header.size = size
        tar.addfile(header, io.BytesIO(name.encode().ljust(size, b".")))
    return sink.getvalue()


def add_image(store: Store, lease: Lease, *names: str, size: int = 1000) -> Descriptor:
    """Store an image of one layer for each of ``names``."""
    layout = store.images
    layers = tuple(Descriptor(OCI_LAYER, *layout.add(io.BytesIO(layer_tar(name, size)), lease)) for name in names)
    config = ImageConfig(diff_ids=tuple(layer.digest for layer in layers))
    manifest = Manifest(layout.add_bytes(config.to_bytes(), OCI_CONFIG, lease), layers)
    return layout.add_bytes(manifest.to_bytes(), OCI_MANIFEST, lease)


def add_named(path: str, reference: str, *names: str, unpack: bool = True, size: int = 1000) -> Descriptor:
    """As somebody does who is gone afterwards."""
    with Store(path) as store:
        image = add_image(store, store.lease, *names, size=size)
        store.images.tag(Reference.parse(reference), image, store.lease)
        if unpack:
            store.roots_of(store.images.manifest_of(image)[1])
    return image


def layers_of(store: Store) -> set[str]:
    return set(store.layers.all())


def is_whole(store: Store, image: Descriptor) -> bool:
    roots = store.roots_of(store.images.manifest_of(image)[1])
    return all(os.listdir(os.path.join(root, "bin")) for root in roots)


def age(store: Store, seconds: float = 3600) -> None:
    """Make everything in ``store`` so much older."""
    then = time.time() - seconds
    for directory, _, names in os.walk(store.path):
        for name in names:
            if name.endswith((".used", ".json")) or "blobs" in directory:
                os.utime(os.path.join(directory, name), (then, then))


def test_an_empty_store_has_nothing_to_prune(store: Store) -> None:
    assert prune(store).freed == 0
    assert disk_usage(store).total == 0


def test_what_has_a_name_stays(store: Store, path: str) -> None:
    image = add_named(path, "a", "one", "two")
    gone = prune(store)
    assert (gone.blobs, gone.layers, gone.images) == (0, 0, ())
    assert is_whole(store, image)


def test_what_lost_its_name_goes_and_what_it_shares_stays(store: Store, path: str) -> None:
    first = add_named(path, "a", "base", "one")
    second = add_named(path, "a", "base", "two")
    gone = prune(store)
    assert gone.images == (first.digest,)
    assert (gone.blobs, gone.layers) == (3, 1)
    assert gone.freed > 2000
    assert is_whole(store, second)
    assert layers_of(store) == {digest_of(layer_tar("base")), digest_of(layer_tar("two"))}


def test_named_images_go_when_that_is_asked_for(store: Store, path: str) -> None:
    add_named(path, "a", "one")
    assert prune(store, tagged=True).images == ("docker.io/library/a:latest",)
    assert disk_usage(store).total == 0
    assert store.images.index().manifests == ()


def test_what_is_in_use_stays_until_its_user_is_done(store: Store, path: str) -> None:
    image = add_named(path, "a", "one")
    with Store(path) as user:
        (root,) = user.roots_of(user.images.manifest_of(image)[1])
        assert prune(store, tagged=True).images == ()
        assert os.path.exists(f"{root}/bin/one")
    assert prune(store, tagged=True).images != ()
    assert not os.path.exists(root)


def test_a_layer_in_use_stays_though_its_image_is_removed(store: Store, path: str) -> None:
    image = add_named(path, "a", "one")
    with Store(path) as user:
        (root,) = user.roots_of(user.images.manifest_of(image)[1])
        store.images.remove(Reference.parse("a"))
        prune(store, older_than=0, max_bytes=0)
        assert os.path.exists(f"{root}/bin/one")
    assert prune(store).layers == 1


def test_what_a_killed_user_used_goes(store: Store, path: str) -> None:
    image = add_named(path, "a", "one")
    ready, told = os.pipe()
    wait, go = os.pipe()

    def use() -> None:
        user = Store(path)
        user.roots_of(user.images.manifest_of(image)[1])
        os.write(told, b"x")
        os.read(wait, 1)

    child = child_of(use)
    os.read(ready, 1)
    store.images.remove(Reference.parse("a"))
    assert prune(store).layers == 0
    os.kill(child, signal.SIGKILL)
    assert end_of(child) == -signal.SIGKILL
    os.close(go)
    assert prune(store).layers == 1
    assert [name for name in os.listdir(os.path.join(path, "locks/leases")) if name != "gate"] == []


def test_a_fork_of_the_user_does_not_end_its_use(store: Store, path: str) -> None:
    image = add_named(path, "a", "one")
    with Store(path) as user:
        user.roots_of(user.images.manifest_of(image)[1])
        assert end_of(child_of(user.close)) == 0
        assert prune(store, tagged=True).images == ()


def test_blobs_that_are_not_named_yet_stay_as_long_as_their_writer_lives(store: Store, path: str) -> None:
    with store.leases.take() as lease:
        image = add_image(store, lease, "one")
        assert prune(Store(path)).blobs == 0
        store.images.tag(Reference.parse("a"), image, lease)
    assert prune(store).blobs == 0
    assert is_whole(store, image)
    with store.leases.take() as lease:
        add_image(store, lease, "two")
    assert prune(store).blobs == 3


def test_what_a_record_leads_to_stays_until_the_record_is_old(path: str) -> None:
    with Store(path) as store:
        layer = Descriptor(OCI_LAYER, *store.images.add(io.BytesIO(layer_tar("one")), store.lease))
        store.unpack_layer(layer, layer.digest)
        store.remember("key", diff_id=layer.digest, descriptor=layer)
    with Store(path) as store:
        assert prune(store, older_than=60).records == 0
        age(store)
        assert prune(store, older_than=7200).records == 0
        assert store.images.digests() == [layer.digest]
        gone = prune(store, older_than=60)
        assert (gone.records, gone.blobs, gone.layers) == (1, 1, 1)
        assert store.recall("key") is None


def test_what_is_recalled_is_young_again_and_in_use(path: str) -> None:
    with Store(path) as store:
        layer = Descriptor(OCI_LAYER, *store.images.add(io.BytesIO(layer_tar("one")), store.lease))
        store.remember("key", diff_id=layer.digest, descriptor=layer)
    with Store(path) as user, Store(path) as store:
        age(store)
        assert user.recall("key") is not None
        assert prune(store, older_than=60).records == 0
        (record,) = os.listdir(os.path.join(path, "builds"))
        os.utime(os.path.join(path, "builds", record), (0, 0))
        assert prune(store, older_than=60).records == 1
        assert store.images.digests() == [layer.digest]


def test_unpacked_layers_go_by_age_and_come_again(store: Store, path: str) -> None:
    image = add_named(path, "a", "one", "two")
    assert prune(store, older_than=60).layers == 0
    age(store)
    gone = prune(store, older_than=60)
    assert (gone.layers, gone.blobs, gone.images) == (2, 0, ())
    assert layers_of(store) == set()
    assert is_whole(store, image)


def test_named_images_of_an_age_go_and_used_ones_stay(path: str) -> None:
    old, used = add_named(path, "old", "one"), add_named(path, "used", "two")
    age(Store(path))
    with Store(path) as user:
        user.roots_of(user.images.manifest_of(used)[1])
    store = Store(path)
    assert prune(store, older_than=60, tagged=True).images == ("docker.io/library/old:latest",)
    assert is_whole(store, used)
    assert store.images.size(old.digest) is None


def test_by_size_the_longest_unused_goes_first_and_no_more_than_needed(path: str) -> None:
    with Store(path) as store:
        for number, name in enumerate("abc"):
            layer = Descriptor(OCI_LAYER, *store.images.add(io.BytesIO(layer_tar(name, 100_000)), store.lease))
            store.unpack_layer(layer, layer.digest)
            store.remember(name, diff_id=layer.digest, descriptor=layer)
            later = time.time() - 1000 + 10 * number
            os.utime(os.path.join(path, "locks", f"layer-{hex_of(layer.digest)}.used"), (later, later))
            os.utime(store.records._of(name), (later, later))
    store = Store(path)
    before = disk_usage(store)
    assert before.total > 600_000
    prune(store, max_bytes=before.total)
    assert disk_usage(store) == before
    prune(store, max_bytes=450_000)
    assert disk_usage(store).total <= 450_000
    assert store.records.recall("a") is None
    assert store.records.recall("c") is not None
    prune(store, max_bytes=0)
    assert disk_usage(store).total == 0


def test_names_survive_a_store_that_is_to_be_empty(store: Store, path: str) -> None:
    image = add_named(path, "a", "one", size=100_000)
    prune(store, max_bytes=0)
    assert layers_of(store) == set()
    assert is_whole(store, image)


def test_what_a_pruner_that_died_had_taken_away_goes(store: Store, path: str) -> None:
    add_named(path, "a", "one")
    store.images.remove(Reference.parse("a"))
    with store.leases.alone():
        (left,) = store.layers.discard(list(layers_of(store)))
    assert os.path.isdir(left)
    prune(store)
    assert not os.path.exists(left)


def test_a_record_that_was_half_written_goes_once_nobody_can_be_writing_it(store: Store, path: str) -> None:
    store.remember("key", below=None)
    old, new = (Path(path, "builds", f".partial-{name}") for name in ("old", "new"))
    for partial in (old, new):
        partial.write_text('{"key')
    os.utime(old, (0, 0))
    assert prune(store).records == 0
    assert (old.exists(), new.exists()) == (False, True)
    assert store.recall("key") is not None


def test_a_stores_usage_counts_what_is_there(store: Store, path: str) -> None:
    add_named(path, "a", "one", "two")
    usage = disk_usage(store)
    assert (usage.images, usage.blobs, usage.layers, usage.records) == (1, 4, 2, 0)
    assert usage.layer_bytes >= 2 * 1000
    assert usage.total == usage.blob_bytes + usage.layer_bytes


def test_two_prune_while_two_add_and_nobody_loses_anything(path: str) -> None:
    Store(path)
    stop = os.pipe()

    def add(number: int) -> None:
        for turn in range(15):
            with Store(path) as store:
                image = add_image(store, store.lease, "shared", f"{number}-{turn}")
                manifest = store.images.manifest_of(image)[1]
                assert is_whole(store, image)
                store.images.tag(Reference.parse(f"n{number}"), image, store.lease)
                roots = store.roots_of(manifest)
                assert all(os.path.isdir(root) for root in roots)
                assert [store.images.read(manifest.config) for _ in range(2)]

    def sweep() -> None:
        os.set_blocking(stop[0], False)
        while True:
            try:
                os.read(stop[0], 1)
            except BlockingIOError:
                prune(Store(path), older_than=0, max_bytes=0)
            else:
                return

    adders = [child_of(lambda number=number: add(number)) for number in range(2)]  # type: ignore[misc]
    pruners = [child_of(sweep) for _ in range(2)]
    ends = [end_of(child) for child in adders]
    os.write(stop[1], b"xx")
    assert ends + [end_of(child) for child in pruners] == [0] * 4
    store = Store(path)
    prune(store)
    kept = store.images.index().manifests
    assert sorted(str(one.name) for one in kept) == ["docker.io/library/n0:latest", "docker.io/library/n1:latest"]
    assert all(is_whole(store, one) for one in kept)


def test_collecting_twice_is_collecting_once(store: Store, path: str) -> None:
    add_named(path, "a", "one")
    store.images.remove(Reference.parse("a"))
    assert collect(store).blobs == 3
    assert collect(store).blobs == 0


def test_a_lease_says_what_it_holds_and_ends_twice(tmp_path: Path) -> None:
    leases = Leases(str(tmp_path))
    lease = leases.take()
    lease.pin("sha256:a", "sha256:b")
    lease.pin("sha256:b")
    with leases.alone():
        assert leases.in_use() == {"sha256:a", "sha256:b"}
    assert " of 2>" in repr(lease)
    lease.close()
    lease.close()
    with leases.alone():
        assert leases.in_use() == set()
    assert " closed>" in repr(lease)
