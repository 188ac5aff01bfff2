"""PYTEST_DONT_REWRITE. Files in a sandbox, reached from outside of it.

A sandbox's processes may swap a directory for a symlink at any moment. So every path is resolved by openat2(2), which
knows no way out of the sandbox's root, and what was found is used through its descriptor, never by its path again.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import FileAccessError, SpecError
from pytest_sandbox_runtime.kernel.files import Resolve, openat2
from pytest_sandbox_runtime.trees import (
    DIRECTORY,
    PIN,
    Place,
    TreeCopy,
    closing,
    open_directory,
    reopen,
    split,
    write_all,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    StrPath = str | os.PathLike[str]

_INSIDE = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS
_RACES = 1000
_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755
_ALL_OF_A_MODE, _WITHOUT_SET_ID = 0o7777, 0o1777
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_HINTS = {
    ("read", errno.EISDIR): "listdir() names what is in it, get() copies it",
    ("read", errno.EINVAL): "read it by a command that runs in the sandbox, with a timeout",
    ("write", errno.EINVAL): "write to it by a command that runs in the sandbox, with a timeout",
    ("write", errno.ENOENT): "the directory must be there first: mkdir(..., parents=True)",
    ("make directory", errno.ENOENT): "parents=True makes the directories above it, too",
    ("put", errno.ENOENT): "the source, and the directory that the target is in, must be there first",
    ("put", errno.EINVAL): "a device cannot be copied",
    ("get", errno.ENOENT): "the source, and the directory that the target is in, must be there first",
    ("get", errno.EINVAL): "a device cannot be copied: get its neighbours one by one",
    ("get", errno.EEXIST): "os.path.realpath() says where it leads",
}
_ERRNO_HINTS = {
    errno.EACCES: "without root, files of the sandbox's other users can be reached by a command in it only",
    errno.ELOOP: "symlinks that go in a circle, or through /proc to where a process is, are not followed",
    errno.EROFS: "what is read-only in the sandbox is so from outside, too",
}


class MissingFileError(FileAccessError, FileNotFoundError):
    """A file in a sandbox, or a directory on the way to it, that is not there."""


class Files:
    """The files of one sandbox: absolute paths, resolved as in the sandbox, symlinks too, and never out of it.

    ``root`` is a descriptor of its root directory, which the caller keeps open. Raises FileAccessError, an OSError
    and, for what is missing, also a FileNotFoundError; SpecError for a path that is not absolute.
    """

    def __init__(self, root: int) -> None:
        self._root = root

    def read_bytes(self, path: StrPath) -> bytes:
        """Return what is in a file. A fifo, a device or a socket is refused: its end may never come."""
        where = _absolute(path)
        with _doing("read", where), self._open(where, PIN) as found, closing(reopen(found, os.O_RDONLY)) as fd:
            return _read_all(fd)

    def read_text(self, path: StrPath, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the text in a file, its line ends as they are."""
        return self.read_bytes(path).decode(encoding, errors)

    def write_bytes(self, path: StrPath, data: bytes | bytearray | memoryview) -> int:
        """Make a file hold ``data`` and return how many bytes that are; a new one has mode 0644."""
        view, where = memoryview(data).cast("B"), _absolute(path)
        with _doing("write", where), closing(self._open_to_write(where)) as fd:
            write_all(fd, view)
        return len(view)

    def write_text(self, path: StrPath, text: str, encoding: str = "utf-8") -> int:
        """Make a file hold ``text`` and return how many bytes that are."""
        return self.write_bytes(path, text.encode(encoding))

    def put(self, source: StrPath, target: StrPath, *, owner: tuple[int, int] | None = None) -> None:
        """Copy a file or tree of the host into the sandbox, as ``cp -a`` does, but owned by root or ``owner``.

        Into ``target`` where that is a directory, else as it; its parent must exist. A file that is in the way is
        replaced, a directory kept with its mode. ``owner`` is a uid and gid as the host counts them.
        """
        outside, where = os.fspath(source), _absolute(target)
        copy = TreeCopy(owner or _root_if_root(), _ALL_OF_A_MODE)
        above, name = _source_of(outside)
        with (
            _doing("put", where, lambda: f"put {_below(outside, copy.at)} into the sandbox at {where}"),
            closing(os.open(above, PIN | DIRECTORY)) as origin,
            self._target(where, name) as place,
        ):
            copy.run(Place(origin, name), place)

    def get(self, source: StrPath, target: StrPath) -> None:
        """Copy a file or tree out of the sandbox, as ``cp -a`` does, but owned by the caller.

        Into ``target`` where that is a directory, else as it; its parent must exist. Symlinks come out as symlinks,
        and none on the host is written through. Set-user-ID and set-group-ID bits stay behind.
        """
        where, outside = _absolute(source), os.fspath(target)
        copy = TreeCopy(None, _WITHOUT_SET_ID)
        above, name = _source_of(where)
        with (
            _doing("get", where, lambda: f"get {_below(where, copy.at)} out of the sandbox to {outside}"),
            self._open(above, PIN | DIRECTORY) as origin,
            _target_outside(outside, name) as place,
        ):
            copy.run(Place(origin, name), place)

    def exists(self, path: StrPath) -> bool:
        """Return whether ``path`` leads to anything."""
        return self._mode(path) is not None

    def is_socket(self, path: StrPath) -> bool:
        """Return whether ``path`` is a Unix socket, or leads to one."""
        return stat.S_ISSOCK(self._mode(path) or 0)

    def is_dir(self, path: StrPath) -> bool:
        """Return whether ``path`` leads to a directory."""
        return stat.S_ISDIR(self._mode(path) or 0)

    def listdir(self, path: StrPath) -> list[str]:
        """Return the names in a directory, sorted."""
        where = _absolute(path)
        with _doing("list", where), self._open(where, os.O_RDONLY | DIRECTORY) as fd:
            return sorted(os.listdir(fd))

    def mkdir(self, path: StrPath, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory with mode 0755, as pathlib does: ``parents`` makes those above it, too."""
        where = _absolute(path)
        above = split(where)[0]
        if parents and above != where and not self.exists(above):
            self.mkdir(above, parents=True, exist_ok=True)
        with _doing("make directory", where):
            try:
                self._make_directory(where)
            except FileExistsError:
                if not (exist_ok and self.is_dir(where)):
                    raise

    def unlink(self, path: StrPath) -> None:
        """Remove a file, or a symlink itself."""
        where = _absolute(path)
        above, name = split(where)
        with _doing("remove", where), self._open(above, PIN | DIRECTORY) as directory:
            os.unlink(name, dir_fd=directory)

    def _mode(self, path: StrPath) -> int | None:
        where = _absolute(path)
        with _doing("look at", where):
            try:
                with self._open(where, PIN) as fd:
                    return os.fstat(fd).st_mode
            except OSError as error:
                if error.errno in _ABSENT:
                    return None
                raise

    @contextmanager
    def _open(self, path: str, flags: int) -> Iterator[int]:
        with closing(self._resolve(path, flags)) as fd:
            yield fd

    def _resolve(self, path: str, flags: int, mode: int = 0) -> int:
        for _ in range(_RACES):
            try:
                return openat2(self._root, path, flags, mode, _INSIDE)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    # A SyscallError is none of OSError's subclasses, such as FileNotFoundError.
                    raise OSError(error.errno, error.strerror) from error
        raise OSError(errno.EAGAIN, "the directories on its way are renamed all the time")

    def _open_to_write(self, path: str) -> int:
        try:
            with self._open(path, PIN) as found:
                return reopen(found, os.O_WRONLY | os.O_TRUNC)
        except FileNotFoundError:
            # Not O_EXCL: a symlink to what is not there yet makes it. Non-blocking: by now, it may be a fifo.
            fd = self._resolve(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, _FILE_MODE)
            os.fchmod(fd, _FILE_MODE)  # the caller's umask has no say in a sandbox
            return fd

    def _make_directory(self, path: str) -> None:
        above, name = split(path)
        with self._open(above, PIN | DIRECTORY) as directory:
            os.mkdir(name, dir_fd=directory)
            with closing(open_directory(Place(directory, name))) as made:
                os.fchmod(made, _DIRECTORY_MODE)

    @contextmanager
    def _target(self, path: str, name: str) -> Iterator[Place]:
        above, becomes = (path, name) if self.is_dir(path) else split(path)
        with self._open(above, PIN | DIRECTORY) as directory:
            yield Place(directory, becomes)


@contextmanager
def _target_outside(path: str, name: str) -> Iterator[Place]:
    if os.path.islink(path.rstrip("/")):
        # It may have come out of the sandbox: then the sandbox, and not the caller, says where it leads.
        raise FileExistsError(errno.EEXIST, "the target is a symlink, which is not written through")
    above, becomes = (path, name) if os.path.isdir(path) else split(path)
    with closing(os.open(above, PIN | DIRECTORY)) as directory:
        yield Place(directory, becomes)


def _absolute(path: StrPath) -> str:
    text = os.fspath(path)
    if not isinstance(text, str) or not text.startswith("/") or "\0" in text:
        raise SpecError(f"{text!r} is no absolute path in the sandbox", hint="start it with /")
    return text


def _source_of(path: str) -> tuple[str, str]:
    above, name = split(path)
    return above, name.rstrip("/")


def _root_if_root() -> tuple[int, int] | None:
    # Without root, what the caller makes is root's in the sandbox already.
    return (0, 0) if os.geteuid() == 0 else None


def _below(path: str, member: str) -> str:
    return os.path.join(path.removesuffix("/."), member) if member else path


@contextmanager
def _doing(verb: str, path: str, describe: Callable[[], str] | None = None) -> Iterator[None]:
    try:
        yield
    except FileAccessError:
        raise
    except OSError as error:
        raise _refusal(verb, path, describe() if describe else f"{verb} {path} in the sandbox", error) from error


def _refusal(verb: str, path: str, wanted: str, error: OSError) -> FileAccessError:
    code = error.errno or 0
    kind = MissingFileError if code == errno.ENOENT else FileAccessError
    hint = _HINTS.get((verb, code)) or _ERRNO_HINTS.get(code, "")
    # A name that is not UTF-8 must not break whoever prints the message.
    shown = wanted.encode(errors="backslashreplace").decode()
    return kind(f"cannot {shown}: {error.strerror or error}", errno=code, filename=path, hint=hint)


def _read_all(fd: int) -> bytes:
    with io.FileIO(fd, closefd=False) as file:
        content = file.readall()
    if content is None:  # some files of /proc and /sys have nothing to say yet
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return content
