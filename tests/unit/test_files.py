"""Files in a sandbox: reading, writing and copying, and no way out of it."""

from __future__ import annotations

import os
import pickle
import socket
import stat
import tempfile
import threading
from contextlib import closing, suppress
from ctypes import c_char_p, c_int, c_uint
from pathlib import Path
from typing import TYPE_CHECKING, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import FileAccessError, SpecError
from pytest_sandbox_runtime.files import Files, MissingFileError
from pytest_sandbox_runtime.kernel.libc import bind

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
OLD = 1_000_000_000_123_456_789
Trees = dict[str, Union[bytes, "Trees"]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the directory that is a sandbox's root in these tests."""
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a directory of the host, with something to keep safe."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_text("the host's")
    return path


@pytest.fixture
def files(root: Path) -> Iterator[Files]:
    """Return the files of the sandbox whose root is ``root``."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield Files(fd)
    os.close(fd)


# Reading and writing


def test_what_is_written_is_read(files: Files) -> None:
    assert files.write_bytes("/data", b"\0\xff\r\n") == 4
    assert files.read_bytes("/data") == b"\0\xff\r\n"


def test_text_is_encoded_and_its_bytes_are_counted(files: Files) -> None:
    assert files.write_text("/text", "für\r\n") == 6
    assert files.read_text("/text") == "für\r\n"
    assert files.write_text("/text", "ü", encoding="latin-1") == 1
    assert files.read_text("/text", errors="replace") == "\ufffd"


def test_a_shorter_text_leaves_nothing_of_the_longer_one(files: Files) -> None:
    files.write_text("/text", "long" * 1000)
    files.write_text("/text", "short")
    assert files.read_text("/text") == "short"


def test_many_bytes_go_both_ways(files: Files) -> None:
    data = os.urandom(MIB) * 9
    assert files.write_bytes("/data", memoryview(data)) == len(data)
    assert files.read_bytes("/data") == data


def test_a_new_file_has_its_mode_whatever_the_callers_umask(files: Files, root: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write_text("/new", "")
        files.mkdir("/directory")
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "new").stat().st_mode) == 0o644
    assert stat.S_IMODE((root / "directory").stat().st_mode) == 0o755


def test_writing_keeps_the_mode_that_a_file_has(files: Files, root: Path) -> None:
    (root / "script").touch(0o700)
    files.write_text("/script", "#!/bin/sh")
    assert stat.S_IMODE((root / "script").stat().st_mode) == 0o700


def test_a_file_of_proc_that_does_not_know_its_size_is_read() -> None:
    fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    try:
        assert "version" in Files(fd).read_text("/version")
    finally:
        os.close(fd)


# Symlinks


def test_an_absolute_symlink_leads_to_what_the_sandbox_has_there(files: Files, root: Path, outside: Path) -> None:
    (root / outside.relative_to("/")).mkdir(parents=True)
    (root / outside.relative_to("/") / "secret").write_text("the sandbox's")
    (root / "link").symlink_to(outside / "secret")
    assert files.read_text("/link") == "the sandbox's"


@pytest.mark.parametrize("way", ["absolute", "relative"])
def test_a_symlink_does_not_lead_out(files: Files, root: Path, outside: Path, way: str) -> None:
    (root / "link").symlink_to(outside if way == "absolute" else Path("../../../../..") / outside.relative_to("/"))
    assert not files.exists("/link/secret")
    with pytest.raises(FileNotFoundError):
        files.read_bytes("/link/secret")
    with pytest.raises(FileNotFoundError):
        files.write_bytes("/link/secret", b"")
    assert (outside / "secret").read_text() == "the host's"


def test_dots_end_at_the_root(files: Files, root: Path) -> None:
    (root / "here").write_text("inside")
    assert files.read_text("/../../../here") == "inside"


def test_a_dangling_symlink_makes_its_target_in_the_sandbox(files: Files, root: Path, outside: Path) -> None:
    (root / outside.relative_to("/")).mkdir(parents=True)
    (root / "link").symlink_to(outside / "new")
    files.write_text("/link", "text")
    assert (root / outside.relative_to("/") / "new").read_text() == "text"
    assert not (outside / "new").exists()


def test_a_magic_link_is_not_followed() -> None:
    fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(FileAccessError, match="cannot list /self/cwd in the sandbox: Too many levels"):
            Files(fd).listdir("/self/cwd")
    finally:
        os.close(fd)


RENAME_EXCHANGE = 2
renameat2 = bind("renameat2", c_int, c_char_p, c_int, c_char_p, c_uint)


def swap(one: Path, other: Path, until: threading.Event) -> None:
    while not until.is_set():
        renameat2(-1, os.fsencode(one), -1, os.fsencode(other), RENAME_EXCHANGE)


@pytest.fixture
def swapped(root: Path, outside: Path) -> Iterator[Path]:
    """Return a directory of the sandbox that is, every now and then, a symlink out of it."""
    (root / "directory").mkdir()
    (root / "directory" / "secret").write_text("the sandbox's")
    (root / "link").symlink_to(outside)
    over = threading.Event()
    thread = threading.Thread(target=swap, args=(root / "directory", root / "link", over))
    thread.start()
    yield root / "directory"
    over.set()
    thread.join()


@pytest.mark.usefixtures("swapped")
def test_a_directory_that_is_swapped_for_a_symlink_is_no_way_out(files: Files, outside: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "new").write_text("new")
    (tmp_path / "source" / "secret").write_text("the test's")
    seen = {"the sandbox's", "the test's"}
    for count in range(300):
        with suppress(FileAccessError):
            assert files.read_text("/directory/secret") in seen
        with suppress(FileAccessError):
            files.put(f"{tmp_path}/source/.", "/directory")
        with suppress(FileAccessError):
            files.write_text("/directory/new", "new")
        with suppress(FileAccessError):
            files.get("/directory", tmp_path / f"copy{count}")
        copy = tmp_path / f"copy{count}" / "secret"
        assert copy.parent.is_symlink() or not copy.exists() or copy.read_text() in seen
    assert sorted(os.listdir(outside)) == ["secret"]
    assert (outside / "secret").read_text() == "the host's"


# What is refused


@pytest.mark.parametrize("path", ["etc/hosts", "", ".", "/a\0b"])
def test_a_path_that_is_not_absolute_is_refused(files: Files, path: str, tmp_path: Path) -> None:
    for access in (files.read_bytes, files.exists, files.listdir, files.mkdir, files.unlink):
        with pytest.raises(SpecError, match="is no absolute path in the sandbox"):
            access(path)
    with pytest.raises(SpecError):
        files.put(tmp_path, path)
    with pytest.raises(SpecError):
        files.get(path, tmp_path)


def test_a_missing_file_is_said_with_its_path(files: Files) -> None:
    with pytest.raises(FileNotFoundError, match="cannot read /etc/none in the sandbox: No such file") as caught:
        files.read_bytes("/etc/none")
    assert isinstance(caught.value, FileAccessError)
    assert (caught.value.errno, caught.value.filename) == (2, "/etc/none")


def test_a_missing_directory_is_said_with_a_hint(files: Files) -> None:
    with pytest.raises(MissingFileError, match=r"cannot write /etc/new .*\n  hint: .*mkdir"):
        files.write_text("/etc/new", "")


def test_a_fifo_is_refused_at_once(files: Files, root: Path) -> None:
    os.mkfifo(root / "fifo")
    with pytest.raises(FileAccessError, match="cannot read /fifo .*: it is a fifo, not a file\n  hint: "):
        files.read_bytes("/fifo")
    with pytest.raises(FileAccessError, match="cannot write /fifo .*: it is a fifo, not a file\n  hint: "):
        files.write_bytes("/fifo", b"")


def test_a_device_is_refused() -> None:
    fd = os.open("/dev", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(FileAccessError, match="it is a character device, not a file"):
            Files(fd).read_bytes("/zero")
    finally:
        os.close(fd)


def test_a_directory_is_refused_as_a_file(files: Files) -> None:
    with pytest.raises(FileAccessError, match=r"cannot read / .*Is a directory\n  hint: listdir"):
        files.read_bytes("/")


def test_a_name_that_is_not_utf8_is_said_so_that_it_can_be_printed(files: Files) -> None:
    with pytest.raises(FileAccessError) as caught:
        files.read_bytes(os.fsdecode(b"/caf\xe9"))
    assert str(caught.value).encode()
    assert r"/caf\udce9" in str(caught.value)


def test_an_error_travels_between_processes(files: Files) -> None:
    with pytest.raises(FileAccessError) as caught:
        files.read_bytes("/none")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# Directories


def test_directories_are_made_listed_and_seen(files: Files) -> None:
    files.mkdir("/a/b/c", parents=True)
    files.write_text("/a/b/file", "")
    assert files.listdir("/a/b") == ["c", "file"]
    assert files.is_dir("/a/b/c")
    assert files.exists("/a/b/file")
    assert not files.is_dir("/a/b/file")
    assert not files.exists("/a/b/file/below")


def test_mkdir_minds_what_is_there(files: Files) -> None:
    files.mkdir("/a")
    files.mkdir("/a", exist_ok=True)
    files.mkdir("/a/", parents=True, exist_ok=True)
    files.mkdir("/", parents=True, exist_ok=True)
    files.write_text("/file", "")
    for path, exist_ok in (("/a", False), ("/file", True)):
        with pytest.raises(FileAccessError, match=f"cannot make directory {path} .*: File exists"):
            files.mkdir(path, exist_ok=exist_ok)
    with pytest.raises(MissingFileError, match="hint: parents=True"):
        files.mkdir("/b/c")


def test_mkdir_ends_where_a_path_ends_in_a_dot(files: Files) -> None:
    with pytest.raises(MissingFileError):
        files.mkdir("/none/.", parents=True)


def test_unlink_removes_a_symlink_and_not_where_it_leads(files: Files, root: Path) -> None:
    (root / "file").write_text("kept")
    (root / "link").symlink_to("file")
    files.unlink("/link")
    assert os.listdir(root) == ["file"]
    with pytest.raises(MissingFileError, match="cannot remove /link"):
        files.unlink("/link")


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
