"""Layers one over the other: by what they are called in a store, and what is shared between images."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.images.digest import digest_of, hex_of
from pytest_sandbox_runtime.images.manifest import ImageConfig
from pytest_sandbox_runtime.images.pruning import collect
from pytest_sandbox_runtime.images.stack import EMPTY, Stack, all_names, chain_id, names_of
from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_sandbox_runtime.images.manifest import Descriptor

A, B, C = (digest_of(name) for name in (b"a", b"b", b"c"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "store")) as store:
        yield store


def layer(*names: str, mode: int = 0o755) -> bytes:
    """Return a tar of empty files; one that ends with a slash is a directory of ``mode``."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name in names:
            header = tarfile.TarInfo(name)
            header.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            header.mode = mode if name.endswith("/") else 0o644
            tar.addfile(header)
    return sink.getvalue()


PLAIN = layer("etc/", "etc/base")
IMPLIED = layer("etc/more")
WHITEOUT = layer("etc/.wh.base")


def stack(store: Store, *layers: bytes) -> Stack:
    below = EMPTY
    for one in layers:
        descriptor = store.add_layer_tar(io.BytesIO(one))
        below = store.unpack_layer(descriptor, descriptor.digest, below)
    return below


def test_chain_ids_are_those_of_the_image_spec() -> None:
    both = "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    assert chain_id(None, A) == A
    assert chain_id(A, B) == both
    assert chain_id(both, C) == "sha256:" + hashlib.sha256(f"{both} {C}".encode()).hexdigest()


def test_a_layer_that_depends_on_what_is_below_is_called_by_its_chain_id() -> None:
    assert names_of(B, A) == (B, chain_id(A, B))
    alone, dependent = names_of(A, None)
    assert alone == A
    assert dependent not in (A, chain_id(A, A))
    assert all_names([A, B, C]) == (*names_of(A, None), *names_of(B, A), *names_of(C, chain_id(A, B)))


def test_what_stands_alone_is_shared_whatever_is_below(store: Store) -> None:
    other = layer("etc/", "etc/other")
    one, two = stack(store, PLAIN, other), stack(store, other)
    assert one.roots[0] == two.roots[0] == f"{store.path}/layers/{hex_of(digest_of(other))}"


@pytest.mark.parametrize("top", [IMPLIED, WHITEOUT], ids=["implied", "whiteout"])
def test_what_depends_on_what_is_below_is_never_shared(store: Store, top: bytes) -> None:
    places = [
        stack(store, top).roots[0],
        stack(store, PLAIN, top).roots[0],
        stack(store, layer("etc/", mode=0o700), top).roots[0],
    ]
    assert len(set(places)) == 3
    assert f"{store.path}/layers/{hex_of(digest_of(top))}" not in places


def test_a_whiteout_hides_what_is_below_and_an_implied_directory_looks_as_below(store: Store) -> None:
    (hidden,) = stack(store, PLAIN, WHITEOUT).roots[:1]
    assert stat.S_ISCHR(os.lstat(f"{hidden}/etc/base").st_mode)
    assert not os.listdir(stack(store, WHITEOUT).roots[0])
    (implied,) = stack(store, layer("etc/", mode=0o700), IMPLIED).roots[:1]
    assert stat.S_IMODE(os.stat(f"{implied}/etc").st_mode) == 0o700


def test_the_root_directory_is_that_of_the_lowest_layer_whatever_came_first(store: Store) -> None:
    top = layer("etc/")
    assert os.path.basename(stack(store, PLAIN, top).roots[0]) == hex_of(digest_of(top))
    closed = stack(store, layer("./", mode=0o555), top)
    assert stat.S_IMODE(os.stat(closed.roots[0]).st_mode) == 0o555


def test_a_layer_that_is_there_is_found_without_its_blob(store: Store) -> None:
    for layers in ((PLAIN,), (PLAIN, WHITEOUT), (PLAIN, WHITEOUT, IMPLIED)):
        made = stack(store, *layers)
        found: Stack | None = EMPTY
        for one in layers:
            store.images.delete(digest_of(one))
            found = store.find_layer(digest_of(one), found or EMPTY)
        assert found == made
    assert store.find_layer(digest_of(IMPLIED)) is None


def image(store: Store, *layers: bytes) -> Descriptor:
    descriptors = [store.add_layer_tar(io.BytesIO(one)) for one in layers]
    return store.add_image(ImageConfig(diff_ids=tuple(one.digest for one in descriptors)), descriptors)


def test_an_images_layers_stay_and_those_of_nothing_go(store: Store) -> None:
    kept, gone = image(store, PLAIN, WHITEOUT), image(store, layer("x/", mode=0o700), IMPLIED)
    stacks = [store.stack_of(store.images.manifest_of(one)[1]) for one in (kept, gone)]
    store.images.put(kept)
    store.close()
    collect(store)
    assert [[os.path.isdir(root) for root in one.roots] for one in stacks] == [[True, True], [False, False]]


def test_a_record_keeps_its_layer_and_says_what_it_is_over(store: Store) -> None:
    below = stack(store, PLAIN)
    descriptor = store.add_layer_tar(io.BytesIO(WHITEOUT))
    made = store.unpack_layer(descriptor, descriptor.digest, below)
    store.remember("base", diff_id=digest_of(PLAIN))
    store.remember("step", diff_id=descriptor.digest, below=below.chain_id)
    store.close()
    collect(store)
    record = store.recall("step")
    assert record is not None
    assert record.diff_id is not None
    assert (record.below, record.diff_id) == (below.chain_id, descriptor.digest)
    assert store.find_layer(record.diff_id, below) == made


def test_an_upper_directory_becomes_a_layer_that_looks_like_it(store: Store, tmp_path: Path) -> None:
    below = stack(store, PLAIN)
    upper = tmp_path / "upper"
    (upper / "etc").mkdir(parents=True)
    (upper / "etc").chmod(0o755)
    (upper / "etc/new").write_bytes(b"new")
    os.mknod(upper / "etc/base", stat.S_IFCHR, 0)
    descriptor = store.write_layer(str(upper), below)
    assert descriptor == store.write_layer(str(upper), below)
    made = store.unpack_layer(descriptor, descriptor.digest, below)
    assert made.roots[1:] == below.roots
    with open(f"{made.roots[0]}/etc/new", "rb") as file:
        assert file.read() == b"new"
    assert stat.S_ISCHR(os.lstat(f"{made.roots[0]}/etc/base").st_mode)
    adopted = store.add_layer_tree(str(upper), digest_of(b"other"), below)
    assert os.path.basename(adopted.roots[0]) == hex_of(chain_id(below.chain_id, digest_of(b"other")))
    assert not upper.exists()
