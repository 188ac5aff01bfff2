"""What is saved is loaded as the same, whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import ImageError, SandboxError
from pytest_sandbox_runtime.images.archive import load
from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.export import save
from pytest_sandbox_runtime.images.pruning import disk_usage, prune
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.store import Store
from tests.unit.archives.images import BASE, NAME, PACKINGS, TOP, oci_files
from tests.unit.archives.stored import files_of, write
from tests.unit.tars import tar_of
from tests.unit.trees import files_below

if TYPE_CHECKING:
    from pathlib import Path


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


def test_what_went_in_comes_out_of_a_store_that_was_pruned(store: Store, tmp_path: Path) -> None:
    ((reference, image),) = load(store, write(tmp_path / "image.tar", tar_of(oci_files(BASE, TOP))))
    before = files_of(store, image)
    store.close()
    prune(store, older_than=0, max_bytes=0)
    assert disk_usage(store).layers == 0
    assert files_of(store, image) == before
    assert reference is not None
