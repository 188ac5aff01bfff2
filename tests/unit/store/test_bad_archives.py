"""What is no archive of a root file system is told so, and leaves nothing behind."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import ImageError, SandboxError
from pytest_sandbox_runtime.images.store import Store
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.specs import Image
from tests.unit.children import child_of, end_of
from tests.unit.store.archives import layers_of, write_archive

if TYPE_CHECKING:
    from pathlib import Path


def refusal(store: Store, path: Path) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        store.root_of(Image.archive(path))
    assert layers_of(store) == []
    assert caught.value.hint
    return caught.value


def test_an_archive_that_grows_while_it_is_unpacked_is_an_error(archive: Path, store: Store) -> None:
    def grow(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.mkdir" and ".partial-" in str(arguments[0]):
            with archive.open("ab") as file:
                file.write(bytes(512))

    def check() -> None:
        sys.addaudithook(grow)
        assert "root.tar was changed while it was read" in refusal(store, archive).message

    assert end_of(child_of(check)) == 0


def test_a_missing_archive_is_an_error_with_its_path(tmp_path: Path, store: Store) -> None:
    error = refusal(store, tmp_path / "none.tar")
    assert isinstance(error, ImageError)
    assert error.message == f"cannot read the archive {tmp_path}/none.tar: No such file or directory"


def test_a_fifo_is_no_archive_and_nobody_waits_for_it(tmp_path: Path, store: Store) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is neither a file nor a directory" in refusal(store, tmp_path / "pipe").message


def test_the_host_is_no_archive(store: Store) -> None:
    with pytest.raises(ImageError, match="the host is no archive"):
        store.root_of(Image.host())


def test_a_truncated_archive_leaves_nothing_behind(archive: Path, store: Store) -> None:
    with archive.open("r+b") as file:
        file.truncate(100_000)
    error = refusal(store, archive)
    assert error.message.startswith(f"{archive} is truncated or corrupt: ")


def test_a_hostile_archive_leaves_nothing_behind(tmp_path: Path, store: Store) -> None:
    error = refusal(store, write_archive(tmp_path / "bad.tar", {"bin/sh": b"#!", "../../escaped": b"x"}))
    assert error.message == (f"{tmp_path}/bad.tar: cannot write member '../../escaped': '../../escaped' has .. in it")
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"readme.txt": b"x", "src/x.py": b"y"}, "pack the root directory itself"),
        ({"root/usr/bin/sh": b"#!", "root/etc/motd": b""}, "is in its root, pack that directory's content"),
        ({"manifest.json": b"[]", "1234/layer.tar": b""}, "pytest-sandbox load"),
        ({"oci-layout": b"{}", "index.json": b"{}"}, "pytest-sandbox load"),
        ({}, "pack the root directory itself"),
    ],
)
def test_an_archive_of_something_else_is_told_so(
    files: dict[str, bytes], words: str, tmp_path: Path, store: Store
) -> None:
    error = refusal(store, write_archive(tmp_path / "other.tar", files))
    assert f"{tmp_path}/other.tar holds no root file system: there is no bin, sbin, usr, but" in error.message
    assert words in error.hint


def test_a_directory_of_something_else_is_told_so(tmp_path: Path, store: Store) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/setup.py").touch()
    error = refusal(store, tmp_path / "project")
    assert "project holds no root file system: there is no bin, sbin, usr, but setup.py" in error.message


@pytest.mark.needs("root")
def test_a_full_disk_is_an_error_with_its_mend_and_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    def check() -> None:
        unshare(CloneFlag.NEWNS)
        mount("none", "/", flags=MountFlag.REC | MountFlag.PRIVATE)
        small = tmp_path / "small"
        small.mkdir()
        mount("tmpfs", str(small), "tmpfs", options="size=128k")
        store = Store(str(small / "store"))
        error = refusal(store, archive)
        assert "root.tar: cannot write member 'usr/share/big': No space left on device" in error.message
        assert error.hint.startswith("free some space")

    assert end_of(child_of(check)) == 0
