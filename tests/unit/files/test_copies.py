"""Trees that are put into a sandbox and got out of it."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import FileAccessError
from pytest_sandbox_runtime.files import Files, MissingFileError

if TYPE_CHECKING:
    pass

MIB = 1 << 20
OLD = 1_000_000_000_123_456_789
Trees = dict[str, Union[bytes, "Trees"]]


# Copies


def make_old(path: Path) -> None:
    os.utime(path, ns=(OLD, OLD), follow_symlinks=False)


def make_tree(top: Path) -> None:
    (top / "empty").mkdir(parents=True)
    (top / "sub").mkdir()
    (top / "sub" / "file").write_bytes(b"\0" * 10 + b"data")
    (top / "sub" / "script").touch()
    (top / "sub" / "script").chmod(0o750)
    (top / "dangling").symlink_to("/no/where")
    (top / "linked").symlink_to("sub")
    os.link(top / "sub" / "file", top / "twin")
    os.mkfifo(top / "fifo", 0o622)
    Path(os.fsdecode(os.fsencode(top) + b"/caf\xe9")).write_text("not UTF-8")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(os.path.relpath(top / "socket"))
    (top / "empty").chmod(0o500)
    for path in (*top.rglob("*"), top):
        make_old(path)


def look(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_mtime_ns, content


def picture(top: Path) -> dict[str, tuple[object, ...]]:
    return {os.path.relpath(path, top): look(path) for path in (top, *top.rglob("*"))}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree of the host with one of everything."""
    make_tree(tmp_path / "tree")
    return tmp_path / "tree"


def test_a_tree_comes_out_as_it_was_put_in(files: Files, root: Path, tree: Path, tmp_path: Path) -> None:
    files.put(tree, "/copy")
    assert picture(root / "copy") == picture(tree)
    files.get("/copy", tmp_path / "back")
    assert picture(tmp_path / "back") == picture(tree)


def test_hard_links_stay_links(files: Files, root: Path, tree: Path) -> None:
    for _ in range(2):  # the second time, all of it is in the way
        files.put(tree, "/copy")
        files.put(f"{tree}/.", "/copy")
        assert (root / "copy" / "twin").samefile(root / "copy" / "sub" / "file")
        assert (root / "copy" / "twin").stat().st_nlink == 2
    assert not (root / "copy" / "twin").samefile(tree / "twin")


def test_holes_stay_holes(files: Files, root: Path, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(64 * MIB)
        file.seek(32 * MIB)
        file.write(b"island")
    files.put(tmp_path / "sparse", "/copy")
    status = (root / "copy").stat()
    assert status.st_size == 64 * MIB
    assert status.st_blocks * 512 < MIB
    assert (root / "copy").read_bytes() == (tmp_path / "sparse").read_bytes()


def test_a_hole_at_the_end_is_kept(files: Files, root: Path, tmp_path: Path) -> None:
    (tmp_path / "sparse").write_bytes(b"data")
    os.truncate(tmp_path / "sparse", MIB + 1)
    files.put(tmp_path / "sparse", "/copy")
    assert (root / "copy").read_bytes() == b"data".ljust(MIB + 1, b"\0")


@pytest.mark.parametrize("path", ["/proc/version", "/sys/devices/system/cpu/online"])
def test_a_file_that_lies_about_its_size_is_copied(files: Files, path: str) -> None:
    files.put(path, "/copy")
    assert files.read_bytes("/copy") == Path(path).read_bytes()


def test_a_directory_takes_what_is_put_under_its_own_name(files: Files, tree: Path) -> None:
    files.mkdir("/opt")
    files.put(tree, "/opt")
    files.put(tree / "sub" / "file", "/opt/")
    files.put(f"{tree}/sub/", "/opt")
    assert files.listdir("/opt") == ["file", "sub", "tree"]


def test_the_contents_of_a_directory_go_into_another(files: Files, tree: Path) -> None:
    files.mkdir("/opt")
    files.put(f"{tree}/sub/.", "/opt")
    assert files.listdir("/opt") == ["file", "script"]


def test_the_contents_of_the_root_come_out(files: Files, tmp_path: Path) -> None:
    files.write_text("/file", "text")
    (tmp_path / "target").mkdir()
    files.get("/", tmp_path / "target")
    files.get("/", tmp_path / "new")
    assert os.listdir(tmp_path / "target") == os.listdir(tmp_path / "new") == ["file"]


def test_a_directory_that_is_there_keeps_its_mode(files: Files, root: Path, tree: Path) -> None:
    (root / "opt").mkdir()
    (root / "opt").chmod(0o755)
    tree.chmod(0o700)
    files.put(f"{tree}/.", "/opt")
    assert stat.S_IMODE((root / "opt").stat().st_mode) == 0o755


def test_a_file_that_is_in_the_way_is_replaced_and_its_other_name_kept(files: Files, root: Path, tree: Path) -> None:
    (root / "old").write_text("old")
    (root / "file").hardlink_to(root / "old")
    files.put(tree / "sub" / "file", "/file")
    assert (root / "file").read_bytes() == b"\0" * 10 + b"data"
    assert (root / "old").read_text() == "old"


def test_a_directory_is_not_replaced_by_a_file(files: Files, root: Path, tree: Path) -> None:
    (root / "opt" / "file").mkdir(parents=True)
    with pytest.raises(FileAccessError, match=f"cannot put {tree}/sub/file into the sandbox at /opt: Is a directory"):
        files.put(tree / "sub" / "file", "/opt")


def test_the_target_may_be_a_symlink_to_a_directory_in_the_sandbox(files: Files, root: Path, tree: Path) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to("/real")
    files.put(tree / "twin", "/link")
    assert os.listdir(root / "real") == ["twin"]


def test_a_missing_parent_is_an_error_that_names_both_ends(files: Files, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=f"cannot put {tree} into the sandbox at /no/where: .*\n  hint: .*first"):
        files.put(tree, "/no/where")
    files.mkdir("/opt")
    with pytest.raises(MissingFileError, match=f"cannot get /opt out of the sandbox to {tmp_path}/no/where: "):
        files.get("/opt", tmp_path / "no" / "where")


def test_a_missing_source_is_an_error(files: Files, tmp_path: Path) -> None:
    for missing in (tmp_path / "none", tmp_path / "none" / "none"):
        with pytest.raises(MissingFileError, match=f"cannot put {missing} into"):
            files.put(missing, "/x")
    with pytest.raises(MissingFileError, match="cannot get /none out"):
        files.get("/none", tmp_path)


def test_a_file_does_not_become_a_directory_that_is_missing(files: Files, root: Path, tree: Path) -> None:
    with pytest.raises(FileAccessError):
        files.put(tree / "twin", "/new/")
    assert os.listdir(root) == []
    files.put(tree / "sub", "/new/")
    assert files.listdir("/new") == ["file", "script"]


def test_a_device_is_not_copied_and_the_error_names_the_member(files: Files) -> None:
    with pytest.raises(FileAccessError, match=r"cannot put /dev/null .*it is a character device\n  hint: "):
        files.put("/dev/null", "/null")


def test_set_user_id_goes_in_and_does_not_come_out(files: Files, root: Path, tmp_path: Path) -> None:
    (tmp_path / "tool").touch()
    (tmp_path / "tool").chmod(0o6755)
    files.put(tmp_path / "tool", "/tool")
    assert stat.S_IMODE((root / "tool").stat().st_mode) == 0o6755
    files.get("/tool", tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o755


# What comes out writes only where it was told to


def test_no_symlink_that_came_out_is_written_through(files: Files, root: Path, outside: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to(outside)
    (root / "tree" / "link").mkdir(parents=True)
    (root / "tree" / "link" / "secret").write_text("the sandbox's")
    (root / "secret").write_text("the sandbox's")
    files.get("/link", tmp_path / "copy")
    with pytest.raises(
        FileAccessError, match="the target is a symlink, which is not written through\n  hint: .*realpath"
    ):
        files.get("/secret", tmp_path / "copy")
    (tmp_path / "merged").mkdir()
    files.get("/link", tmp_path / "merged")
    with pytest.raises(FileAccessError, match="cannot get /tree/link out of .*: Not a directory"):
        files.get("/tree/.", tmp_path / "merged")
    assert (outside / "secret").read_text() == "the host's"


def test_a_symlink_to_a_file_is_replaced_and_not_written_through(
    files: Files, root: Path, outside: Path, tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    (root / "secret").symlink_to(outside / "secret")
    files.get("/secret", tmp_path / "target")
    files.unlink("/secret")
    files.write_text("/secret", "the sandbox's")
    files.get("/secret", tmp_path / "target")
    assert (tmp_path / "target" / "secret").read_text() == "the sandbox's"
    assert (outside / "secret").read_text() == "the host's"


@pytest.mark.parametrize("direction", ["put", "get"])
def test_a_symlink_itself_is_copied(files: Files, root: Path, outside: Path, tmp_path: Path, direction: str) -> None:
    (tmp_path / "out").symlink_to(outside / "secret")
    (root / "in").symlink_to(outside / "secret")
    if direction == "put":
        files.put(tmp_path / "out", "/copy")
        assert os.readlink(root / "copy") == str(outside / "secret")
    else:
        files.get("/in", tmp_path / "copy")
        assert os.readlink(tmp_path / "copy") == str(outside / "secret")


# As a property

NAMES = st.binary(min_size=1, max_size=6).filter(lambda name: name not in (b".", b"..") and not set(name) & set(b"\0/"))
TREES = st.recursive(
    st.binary(max_size=9000),
    lambda below: st.dictionaries(NAMES.map(os.fsdecode), below, max_size=4),
    max_leaves=12,
)


def plant(path: str, tree: bytes | Trees) -> None:
    if isinstance(tree, bytes):
        Path(path).write_bytes(tree)
        return
    os.mkdir(path)
    for name, below in tree.items():
        plant(f"{path}/{name}", below)


@settings(max_examples=60, deadline=None)
@given(tree=TREES)
def test_any_tree_goes_in_and_comes_out_unchanged(tree: bytes | Trees) -> None:
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        (top / "root").mkdir()
        plant(f"{top}/tree", tree)
        fd = os.open(top / "root", os.O_PATH | os.O_DIRECTORY)
        try:
            Files(fd).put(top / "tree", "/")
            Files(fd).get("/tree", top / "back")
        finally:
            os.close(fd)
        assert picture(top / "back") == picture(top / "root" / "tree") == picture(top / "tree")
