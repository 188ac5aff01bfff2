"""PYTEST_DONT_REWRITE. A tar that is read once, forwards, and believed nothing.

What is cut, damaged or swollen ends in an ImageError.
"""

from __future__ import annotations

import errno
import os
import struct
import tarfile
import zlib
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any, cast

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.packed import CHUNK, KINDS, Packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from hashlib import _Hash as Hash

    from typing_extensions import Self

    from pytest_sandbox_runtime.images.limits import Limits

# tarfile reads long names and extended headers whole, and believes the size that they claim.
_MAX_HEADER = 1 << 20
_HOLE = 1 << 16
_ZEROS = bytes(_HOLE)
_COMMON = b"0125"
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_NO_CHECKSUM = b"        "
_ADLER = 65521
_NUMBERS = struct.Struct("8s8s8s12s12s8s")
_WHAT = f"it has to be a tar, {KINDS}"
_AGAIN = "it may have been cut short or damaged on its way: fetch or make it again"
_HOSTILE = "use an archive whose members all stay in it"
# The rest is what tarfile lets through on some damaged headers, depending on its version.
_BAD_HEADER = (tarfile.TarError, ValueError, IndexError, KeyError, OverflowError, RecursionError)


class Refused(Exception):  # noqa: N818 - becomes an ImageError as soon as the archive's name is known
    """Why a member is not written."""


WRONG = (Refused, OSError, ValueError, OverflowError)


def blame(archive: str, task: str, error: Exception) -> ImageError:
    """Return what to raise when one of WRONG came of ``task``."""
    message = f"{archive}: {task}: {getattr(error, 'strerror', None) or error}"
    if isinstance(error, Refused):
        return ImageError(message, hint=_HOSTILE)
    return ImageError(message, hint=_hint_for(error) if isinstance(error, OSError) else _AGAIN)


def _hint_for(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, or put the store elsewhere with PYTEST_SANDBOX_HOME"
    if error.errno == errno.ENOTSUP:
        return "the store needs a file system with extended attributes: put it elsewhere with PYTEST_SANDBOX_HOME"
    return "check that the store can be written and that the archive's names and numbers are possible ones"


class _Header(tarfile.TarInfo):
    """A header; the common kinds are parsed by ``parse``, in a tenth of the time that tarfile takes."""

    __slots__ = ()

    @classmethod
    def parse(cls, block: bytes) -> Self | None:
        """Return the header that ``block`` is; None where tarfile has to look at it."""
        if len(block) != tarfile.BLOCKSIZE or block[156] not in _COMMON or block[345]:
            return None
        try:
            mode, uid, gid, size, mtime, checksum = map(_octal, _NUMBERS.unpack_from(block, 100))
        except ValueError:
            return None  # larger than octal digits can say, or damaged
        if size < 0 or checksum % _ADLER != _sum_of(block):
            return None
        header = cls(_text(block[:100]))
        header.mode, header.uid, header.gid, header.size, header.mtime = mode, uid, gid, size, mtime
        header.type = block[156:157]
        if header.type in _LINKS:
            header.linkname = _text(block[157:257])
        elif header.type == tarfile.DIRTYPE:
            header.name = header.name.rstrip("/")
        return header


def _sum_of(block: bytes) -> int:
    # The lower half of an Adler-32 is the sum of all bytes and 1, in a tenth of the time that sum() takes.
    return ((zlib.adler32(block[:148] + _NO_CHECKSUM + block[156:]) & 0xFFFF) - 1) % _ADLER


def _octal(field: bytes) -> int:
    return int(field.rstrip(b"\0 ") or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


class Archive:
    """A tar that is read once, forwards. To tarfile it is the file; it gives headers, and between them data."""

    def __init__(
        self,
        source: str | os.PathLike[str] | IO[bytes],
        limits: Limits,
        digest: Hash | None = None,
        name: str | None = None,
    ) -> None:
        self._undo = ExitStack()
        self._limits = limits
        self.position = 0
        self._header = self._block = b""
        self._unchecked = limits.unchecked
        if isinstance(source, (str, os.PathLike)):
            self.name = os.fspath(source)
            self._packed = self._open(self.name, digest)
        else:
            self.name = name or str(getattr(source, "name", "the archive"))
            self._packed = Packed(source, self.name, self._undo, digest)
        self._stream = self._packed.stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._undo.close()

    def _open(self, path: str, digest: Hash | None) -> Packed:
        try:
            return Packed(self._undo.enter_context(open(path, "rb", buffering=0)), path, self._undo, digest)
        except OSError as error:
            hint = "check the path and that you may read it"
            raise ImageError(f"cannot read the archive {path}: {error.strerror}", hint=hint) from error

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Yield each header; what is left unread of a member's data when the next is asked for is skipped."""
        tar = self._parse(self._open_tar)
        # It has read that one already, and next() would give it once more.
        member, tar.firstmember = tar.firstmember, None
        while member is not None:
            tar.members.clear()  # it collects every header, and some archives have a million
            yield member
            self._skip_to(tar.offset)
            member = self._next(tar)
        self._check_end()

    def _next(self, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        self._block = self._take(tarfile.BLOCKSIZE)
        header = None if tar.pax_headers else _Header.parse(self._block)
        if header is None:
            return cast("tarfile.TarInfo | None", self._parse(tar.next))
        self._block = b""
        header.offset_data = self.position
        # A link has no data, whatever its size.
        size = header.size if header.type == tarfile.REGTYPE else 0
        tar.offset = self.position + size + -size % tarfile.BLOCKSIZE
        return header

    def _open_tar(self) -> tarfile.TarFile:
        stream = cast("IO[bytes]", self)  # reads and tells, and mode "r" wants no more
        return tarfile.TarFile(fileobj=stream, tarinfo=_Header, encoding="utf-8", errors="surrogateescape")

    def _parse(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except _BAD_HEADER as error:
            if self.position <= tarfile.BLOCKSIZE:
                raise ImageError(f"{self.name} is no tar: {error}", hint=_WHAT) from error
            raise self._damaged(f"{error} before byte {self.position}") from error

    def _check_end(self) -> None:
        # tarfile takes the first block that is no header for the end, and a cut between two members as well.
        if len(self._header) < tarfile.BLOCKSIZE:
            raise self._damaged("it ends without the two empty blocks that close a tar")
        if any(self._header):
            raise self._damaged(f"there is no header before byte {self.position}")
        while self._take(CHUNK):
            pass  # a packed stream has its checksum at the end

    def _damaged(self, reason: str) -> ImageError:
        return ImageError(f"{self.name} is truncated or corrupt: {reason}", hint=_AGAIN)

    def read(self, size: int) -> bytes:
        """Return what a header is made of."""
        if not 0 <= size <= _MAX_HEADER:
            raise self._damaged(f"a header of {size} bytes at byte {self.position}")
        if self._block:
            self._header, self._block = self._block, b""
        else:
            self._header = self._take(size)
        return self._header

    def tell(self) -> int:
        """Return how many bytes were read; a block that is to be read again was not."""
        return self.position - len(self._block)

    def seek(self, position: int) -> None:
        """Refuse: tarfile seeks only where a header gives an impossible size."""
        raise self._damaged(f"a member of impossible size at byte {position}")

    def copy_to(self, fd: int, size: int) -> None:
        """Append the next ``size`` bytes to ``fd``; longer runs of zeros become holes."""
        left = size
        while left > 0:
            data = self._take(min(left, CHUNK))
            if not data:
                raise self._damaged(f"it ends within a member's data, {left} bytes early")
            left -= len(data)
            _append(fd, data)
        if size >= _HOLE:
            os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))  # the last may be a hole

    def _skip_to(self, position: int) -> None:
        if position < self.position:
            raise self._damaged(f"a member of impossible size before byte {self.position}")
        while position > self.position:
            if not self._take(min(position - self.position, CHUNK)):
                raise self._damaged(f"it ends {position - self.position} bytes before the end of a member")

    def _take(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except self._packed.errors as error:
            raise self._damaged(f"{error} after byte {self.position}") from error
        self.position += len(data)
        if self.position > self._unchecked:
            packed = None if self._packed.is_plain else self._packed.count()
            self._limits.check(self.name, self.position, packed)
        return data


def _append(fd: int, data: bytes) -> None:
    at = 0
    while at < len(data):
        if data.startswith(_ZEROS, at):
            os.lseek(fd, _HOLE, os.SEEK_CUR)
            at += _HOLE
            continue
        end = at + _HOLE
        while end < len(data) and not data.startswith(_ZEROS, end):
            end += _HOLE
        at = _write_range(fd, data, at, min(end, len(data)))


def _write_range(fd: int, data: bytes, at: int, end: int) -> int:
    view = memoryview(data)
    while at < end:
        at += os.write(fd, view[at:end])
    return at
