"""PYTEST_DONT_REWRITE. What layers and archives are packed by: gzip and zstd, as streams."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import sys
import zlib
from typing import IO, TYPE_CHECKING, Any, cast

from pytest_sandbox_runtime.errors import ImageError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

NONE, GZIP, ZSTD, BZIP2, XZ = "none", "gzip", "zstd", "bzip2", "xz"
_MAGIC = {b"\x1f\x8b": GZIP, b"\x28\xb5\x2f\xfd": ZSTD, b"BZh": BZIP2, b"\xfd7zXZ\0": XZ}
_GZIP_LEVEL = 6
_AGAIN = "it may have been cut short or damaged on its way: fetch or make it again"


def sniff(head: bytes) -> str:
    """Return what data that begins with ``head`` is packed by, ``none`` for nothing that is known."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), NONE)


def unpacked(stream: IO[bytes], kind: str) -> IO[bytes]:
    """Return the stream of what ``stream`` holds packed; to be read within ``blame``."""
    if kind == GZIP:
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stream))
    if kind == ZSTD:
        return cast("IO[bytes]", _zstd().ZstdFile(stream))
    if kind == BZIP2:
        return cast("IO[bytes]", bz2.BZ2File(stream))
    return cast("IO[bytes]", lzma.LZMAFile(stream)) if kind == XZ else stream


@contextlib.contextmanager
def packed(stream: IO[bytes], kind: str) -> Iterator[IO[bytes]]:
    """Return a stream that writes to ``stream`` packed, the same bytes each time; it ends with the context."""
    if kind == NONE:
        yield stream
    elif kind == GZIP:
        with gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as packer:
            yield cast("IO[bytes]", packer)
    elif kind == ZSTD:
        with _zstd().ZstdFile(stream, "wb") as packer:
            yield packer
    else:
        raise ImageError(f"{kind!r} is no compression that can be written", hint="none, gzip or zstd")


@contextlib.contextmanager
def blame(what: str) -> Iterator[None]:
    """Turn what reading packed data goes wrong with into an ImageError about ``what``; OSErrors of a disk pass."""
    try:
        yield
    except gzip.BadGzipFile as error:
        raise _damaged(what, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(what, error) from error
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(what, error) from error
    except Exception as error:
        # The class of zstd's errors is there only where its module is.
        if type(error).__name__ != "ZstdError":
            raise
        raise _damaged(what, error) from error


def _damaged(what: str, error: Exception) -> ImageError:
    return ImageError(f"{what} is truncated or corrupt: {error}", hint=_AGAIN)


def _zstd() -> Any:
    from importlib import import_module

    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return import_module(name)
    except ImportError as error:
        hint = 'pip install "pytest-sandbox[zstd]"'
        raise UnsupportedError(f"this is packed by zstd, and this Python has no {name}", hint=hint) from error
