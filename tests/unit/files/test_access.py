"""Files of a sandbox, read and written from outside: no path leads out."""

from __future__ import annotations

import os
import pickle
import stat
import threading
from contextlib import suppress
from ctypes import c_char_p, c_int, c_uint
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import FileAccessError, SpecError
from pytest_sandbox_runtime.files import Files, MissingFileError
from pytest_sandbox_runtime.kernel.libc import bind

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


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
