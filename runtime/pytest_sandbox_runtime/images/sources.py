"""PYTEST_DONT_REWRITE. Where loaded images come from: a layout's directory, or a tar, whose members have names.

No name in an archive ever reaches the file system: names are keys here.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
import tarfile
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.documents import MAX_DOCUMENT

if TYPE_CHECKING:
    from typing_extensions import Self

_AGAIN = "it may have been cut short or damaged on its way: fetch or make it again"
# tarfile reads long names and extended headers whole, and believes the size that they claim.
_MAX_HEADER = 1 << 20
_MAX_MEMBERS = 1 << 16
_MAX_LINKS = 8
_FOLDER = re.compile(r"blobs|[a-f0-9]{64}")
# What tarfile lets through on some damaged headers, depending on its version.
_BAD_HEADER = (tarfile.TarError, ValueError, IndexError, KeyError, OverflowError, RecursionError, EOFError)


class Source(Protocol):
    """Files of images by their names."""

    path: str

    def has(self, name: str) -> bool:
        """Whether the file is there."""

    def open(self, name: str) -> IO[bytes]:
        """Return the file, to be read; raises ImageError where it is not there."""


def read_small(source: Source, name: str) -> bytes:
    """Return what the document ``name`` holds; raises ImageError where it is larger than documents are."""
    with source.open(name) as file:
        data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise ImageError(f"{name} is larger than the {MAX_DOCUMENT} bytes that a document may have")
    return data


class Directory:
    """The files below ``path``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return os.path.isfile(os.path.join(self.path, name))

    def open(self, name: str) -> IO[bytes]:
        """Return the file, to be read; raises ImageError where it is not there."""
        try:
            fd = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ImageError(f"it has no {name} that can be read: {error.strerror}", hint=_AGAIN) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ImageError(f"its {name} is no file", hint=_AGAIN)
        return open(fd, "rb", buffering=0)


class Tar:
    """The members of an image's tar, which the descriptor ``fd`` is, unpacked; ``path`` is where it came from."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._members: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self.is_image = self._scan() and ("manifest.json" in self._members or "index.json" in self._members)

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return self._find(name) is not None

    def open(self, name: str) -> IO[bytes]:
        """Return the file, to be read; raises ImageError where it is not there."""
        found = self._find(name)
        if found is None:
            raise ImageError(f"it has no {name}", hint=_AGAIN)
        offset, size = found
        if offset + size > self._size:
            raise ImageError(f"it is truncated: it ends within {name}", hint=_AGAIN)
        return cast("IO[bytes]", _Part(self._fd, offset, size))

    def _find(self, name: str) -> tuple[int, int] | None:
        name = _plain_name(name)
        for _ in range(_MAX_LINKS):
            if name not in self._links:
                break
            name = self._links[name]
        return self._members.get(name)

    def _scan(self) -> bool:
        """Whether nothing in it is what only root file systems have."""
        headers = cast("IO[bytes]", _Headers(self._fd))
        try:
            tar: Any = tarfile.TarFile(fileobj=headers, encoding="utf-8", errors="surrogateescape")
            member = tar.firstmember
            while member is not None:
                if not self._note(member):
                    return False
                tar.members.clear()
                member = tar.next()
        except _BAD_HEADER as error:
            raise ImageError(f"it is no tar, or a damaged one: {error}", hint=_AGAIN) from error
        return True

    def _note(self, member: tarfile.TarInfo) -> bool:
        name = _plain_name(member.name)
        folder = name.partition("/")[0]
        if ("/" in name or not member.isreg()) and not _FOLDER.fullmatch(folder) and name != ".":
            return False
        if len(self._members) + len(self._links) >= _MAX_MEMBERS:
            raise ImageError(f"it has more than {_MAX_MEMBERS} members, and no image has")
        if member.isreg() and member.sparse is None:
            self._members[name] = member.offset_data, member.size
            self._links.pop(name, None)
        elif member.issym():
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            self._links[name] = _plain_name(member.linkname)
        return True


def _plain_name(name: str) -> str:
    return posixpath.normpath(name).lstrip("/") or "."


class _Headers:
    """What tarfile takes for the file: it reads headers only, none of them long."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = 0

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes at byte {self._position}")
        data = os.pread(self._fd, size, self._position)
        self._position += len(data)
        return data

    def seek(self, position: int) -> None:
        if not 0 <= position < 1 << 62:
            raise tarfile.ReadError(f"a member of impossible size before byte {self._position}")
        self._position = position

    def tell(self) -> int:
        return self._position


class _Part:
    """A part of a file, as a stream of its own."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._begin, self._size = offset, size
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._position
        data = os.pread(self._fd, left if size < 0 else min(size, left), self._begin + self._position)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
