"""Files where mounts and owners matter: the sandbox's root is then a tree with mounts of its own."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.files import Files
from pytest_sandbox_runtime.kernel.files import Resolve, openat2
from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare

if TYPE_CHECKING:
    from collections.abc import Callable

DIRECTORY = os.O_PATH | os.O_DIRECTORY


def in_private_mounts(work: Callable[[Path], Any], base: Path) -> Any:
    """Return what ``work`` returns in a child, which has a mount namespace of its own and ``base`` to mount on."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        run_as_child(writer, work, base)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    result, failure = pickle.loads(said)
    assert failure is None, failure
    return result


def run_as_child(writer: int, work: Callable[[Path], Any], base: Path) -> None:
    signal.alarm(60)
    try:
        unshare(CloneFlag.NEWNS)
        mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)
        said: tuple[Any, str | None] = (work(base), None)
    except BaseException:
        said = (None, traceback.format_exc())
    os.write(writer, pickle.dumps(said))
    os._exit(0)


def files_of(root: Path) -> Files:
    return Files(os.open(root, DIRECTORY))


def put_over_a_mounted_file(base: Path) -> tuple[str, str]:
    (base / "root").mkdir()
    (base / "root" / "hosts").touch()
    (base / "mounted").write_text("old")
    (base / "new").write_text("new")
    mount(str(base / "mounted"), str(base / "root" / "hosts"), "", MountFlag.BIND)
    files_of(base / "root").put(base / "new", "/hosts")
    return (base / "root" / "hosts").read_text(), (base / "mounted").read_text()


@pytest.mark.needs("root")
def test_a_file_that_is_a_mount_point_is_rewritten_in_its_place(tmp_path: Path) -> None:
    assert in_private_mounts(put_over_a_mounted_file, tmp_path) == ("new", "new")


def put_links_over_two_file_systems(base: Path) -> tuple[str, int]:
    for name in ("root/tmp", "tree/tmp"):
        (base / name).mkdir(parents=True)
    mount("tmpfs", str(base / "root" / "tmp"), "tmpfs")
    (base / "tree" / "file").write_text("linked")
    (base / "tree" / "tmp" / "twin").hardlink_to(base / "tree" / "file")
    files_of(base / "root").put(f"{base}/tree/.", "/")
    twin = base / "root" / "tmp" / "twin"
    return twin.read_text(), twin.stat().st_nlink


@pytest.mark.needs("root")
def test_links_that_two_mounts_part_are_copied(tmp_path: Path) -> None:
    assert in_private_mounts(put_links_over_two_file_systems, tmp_path) == ("linked", 1)


@pytest.mark.needs("root")
def test_what_is_put_is_roots_and_what_is_got_the_callers(tmp_path: Path) -> None:
    for name in ("root", "tree/sub"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tree" / "link").symlink_to("sub")
    (tmp_path / "tree" / "file").touch()
    members = (tmp_path / "tree", *(tmp_path / "tree").rglob("*"))
    for path in members:
        os.chown(path, 1234, 1234, follow_symlinks=False)
    files = files_of(tmp_path / "root")
    files.put(tmp_path / "tree", "/roots")
    files.put(tmp_path / "tree", "/theirs", owner=(77, 78))
    files.get("/theirs", tmp_path / "back")
    for copy, owner in (("root/roots", (0, 0)), ("root/theirs", (77, 78)), ("back", (0, 0))):
        found = [path.lstat() for path in (tmp_path / copy, *(tmp_path / copy).rglob("*"))]
        assert {(status.st_uid, status.st_gid) for status in found} == {owner}
        assert len(found) == len(members)


@pytest.mark.needs("root")
def test_set_user_id_outlives_the_change_of_owner(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "tool").touch()
    (tmp_path / "tool").chmod(0o4755)
    files_of(tmp_path / "root").put(tmp_path / "tool", "/tool", owner=(77, 78))
    assert stat.S_IMODE((tmp_path / "root" / "tool").stat().st_mode) == 0o4755


def test_openat2_stays_below_where_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    directory = os.open(tmp_path, DIRECTORY)
    for path, resolve in (("..", Resolve.BENEATH), ("/etc", Resolve.BENEATH), ("link", Resolve.NO_SYMLINKS)):
        with pytest.raises(SyscallError, match="openat2"):
            openat2(directory, path, DIRECTORY, 0, resolve)
    os.close(openat2(directory, "..", DIRECTORY, 0, Resolve.IN_ROOT))
    os.close(directory)


def test_openat2_makes_descriptors_that_no_program_inherits(tmp_path: Path) -> None:
    directory = os.open(tmp_path, DIRECTORY)
    fd = openat2(directory, "new", os.O_WRONLY | os.O_CREAT, 0o600)
    assert not os.get_inheritable(fd)
    os.close(fd)
    os.close(directory)
