"""PYTEST_DONT_REWRITE. Streams that may be packed: by gzip, bzip2, xz or zstd, told by how they begin."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import io
import lzma
import zlib
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, Any, cast

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.compressions import BZIP2, GZIP, NONE, XZ, ZSTD, sniff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from hashlib import _Hash as Hash

    from pytest_sandbox_runtime.images.limits import Limits

CHUNK = 1 << 20
KINDS = "plain or packed by gzip, bzip2, xz or zstd"
_GZIP_LEVEL = 6
_AGAIN = "it may have been cut short or damaged on its way: fetch or make it again"
_NO_ZSTD = (
    'pip install "pytest-sandbox[zstd]", or pip install backports.zstd (Python 3.14 has it), or unpack it with unzstd'
)


class Counted(io.RawIOBase):
    """A stream that is read once and tells what was read; closing it leaves its source open."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.count = 0
        self.digest: Hash | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = cast("int", self._source.readinto(buffer)) or 0
        self.count += count
        if self.digest is not None:
            self.digest.update(buffer[:count])
        return count


class Packed:
    """The content of ``source``, whatever it is packed by. ``name`` is for errors; ``undo`` closes what is opened.

    ``digest`` gets all that is read of the content, and is complete at its end.
    """

    def __init__(self, source: Any, name: str, undo: ExitStack, digest: Hash | None = None) -> None:
        self._raw = Counted(source)
        self._buffered = io.BufferedReader(self._raw, CHUNK)
        kind = sniff(self._buffered.peek(6))
        self.is_plain = kind == NONE
        self.errors = _bad_stream()
        if self.is_plain:
            self.stream = cast("IO[bytes]", self._buffered)
        else:
            self.stream = undo.enter_context(_OPENERS[kind](self._buffered, name))
        if digest is not None:
            self._start(digest)

    def _start(self, digest: Hash) -> None:
        if not self.is_plain:
            # In large blocks, as headers and most files are small.
            unpacked = Counted(self.stream)
            unpacked.digest = digest
            self.stream = cast("IO[bytes]", io.BufferedReader(unpacked, CHUNK))
            return
        digest.update(self._buffered.peek())
        self._raw.digest = digest

    def count(self) -> int:
        """Return how many bytes were read of the source."""
        return self._raw.count


class _Limited(io.RawIOBase):
    """What is read of ``packed``, until that is more than ``limits`` let come out of it."""

    def __init__(self, packed: Packed, name: str, limits: Limits) -> None:
        self._packed = packed
        self._name = name
        self._limits = limits
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = cast("int", self._packed.stream.readinto(buffer)) or 0  # type: ignore[attr-defined]
        self._count += count
        self._limits.check(self._name, self._count, None if self._packed.is_plain else self._packed.count())
        return count


@contextlib.contextmanager
def unpacked(source: Any, name: str, limits: Limits | None = None) -> Iterator[IO[bytes]]:
    """Return the content of ``source``, whatever it is packed by; what is wrong in it is an ImageError about ``name``.

    So is more of it than ``limits`` let come. An OSError of a disk passes.
    """
    with ExitStack() as undo:
        packed = Packed(source, name, undo)
        try:
            yield packed.stream if limits is None else cast("IO[bytes]", _Limited(packed, name, limits))
        except packed.errors as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ImageError(f"{name} is truncated or corrupt: {error}", hint=_AGAIN) from error


@contextlib.contextmanager
def packing(stream: IO[bytes], kind: str) -> Iterator[IO[bytes]]:
    """Return a stream that writes to ``stream`` packed, the same bytes each time; it ends with the context."""
    if kind == NONE:
        yield stream
    elif kind == GZIP:
        with gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as packer:
            yield cast("IO[bytes]", packer)
    elif kind == ZSTD:
        with _zstd_or_error("this Python cannot pack by zstd").ZstdFile(stream, "wb") as packer:
            yield packer
    else:
        raise ImageError(f"{kind!r} is no compression that can be written", hint="none, gzip or zstd")


def _gzip(packed: IO[bytes], _name: str) -> IO[bytes]:
    with suppress(ImportError):  # more than twice as fast, where it is installed
        return cast("IO[bytes]", importlib.import_module("isal.igzip").IGzipFile(fileobj=packed))
    return cast("IO[bytes]", gzip.GzipFile(fileobj=packed))


def _bzip2(packed: IO[bytes], _name: str) -> IO[bytes]:
    return cast("IO[bytes]", bz2.BZ2File(packed))


def _xz(packed: IO[bytes], _name: str) -> IO[bytes]:
    return cast("IO[bytes]", lzma.LZMAFile(packed))


def _zstd(packed: IO[bytes], name: str) -> IO[bytes]:
    module = _zstd_or_error(f"{name} is packed by zstd, which this Python cannot read")
    return cast("IO[bytes]", module.ZstdFile(packed))


def _zstd_or_error(message: str) -> Any:
    module = _zstd_module()
    if module is None:
        raise ImageError(message, hint=_NO_ZSTD)
    return module


def _zstd_module() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return importlib.import_module(name)
    return None


def _bad_stream() -> tuple[type[Exception], ...]:
    module = _zstd_module()
    return (OSError, EOFError, zlib.error, lzma.LZMAError, *((module.ZstdError,) if module else ()))


_OPENERS: dict[str, Callable[[IO[bytes], str], IO[bytes]]] = {GZIP: _gzip, BZIP2: _bzip2, XZ: _xz, ZSTD: _zstd}
