"""PYTEST_DONT_REWRITE. Digests, ``sha256:`` and 64 hexadecimal digits: taken while data streams by, and checked."""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING, Any, Protocol

from pytest_sandbox_runtime.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_AGAIN = "it may have been cut short or damaged on its way: fetch or make it again"


class Readable(Protocol):
    """What data is read from; fewer bytes than asked for may come, and none at the end."""

    def read(self, size: int = ..., /) -> bytes:
        """Return up to ``size`` bytes."""


def check_digest(text: object) -> str:
    """Return ``text``, which is a digest by SHA-256; raises ImageError where it is anything else."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        algorithm = text.partition(":")[0] if isinstance(text, str) else ""
        known = algorithm in _LENGTHS and algorithm != "sha256"
        why = f"{algorithm} is not supported" if known else "it is not sha256: and 64 of 0-9 and a-f"
        raise ImageError(f"{text!r:.200} is no digest that can be used: {why}")
    return text


def is_any_digest(text: str) -> bool:
    """Whether ``text`` is a digest as Docker's references may have it: by SHA-256, SHA-384 or SHA-512."""
    algorithm, _, digits = text.partition(":")
    return bool(re.fullmatch(f"[a-f0-9]{{{_LENGTHS.get(algorithm, 1 << 16)}}}", digits)) if len(digits) < 200 else False


def hex_of(digest: str) -> str:
    """Return the 64 digits of ``digest``: what its blob and its layer are called on disk."""
    return check_digest(digest)[len("sha256:") :]


def digest_of(data: bytes) -> str:
    """Return the digest of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Digester:
    """Takes the digest and the size of all that it is given."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def update(self, data: Any) -> None:
        """Add ``data``: bytes, or a view of some."""
        self._hash.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        """The digest of what was given so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def check(self, digest: str | None, size: int | None, what: str) -> None:
        """Raise ImageError, about ``what``, unless that was ``size`` bytes of ``digest``; None is not looked at."""
        if size is not None and self.size != size:
            raise ImageError(f"{what} has {self.size} bytes, and should have {size}", hint=_AGAIN)
        if digest is not None and self.digest != digest:
            raise ImageError(f"{what} has the digest {self.digest}, and should have {digest}", hint=_AGAIN)


class DigestingReader(io.RawIOBase):
    """A stream that tells the digest and the size of what was read from it."""

    def __init__(self, source: Readable, name: str) -> None:
        self._source = source
        self.name = name
        self.seen = Digester()

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as one read goes; returns how many bytes came."""
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self.seen.update(data)
        return len(data)

    def drain(self) -> None:
        """Read what is left."""
        while self.read(CHUNK):
            pass


def pour(source: Readable, *sinks: Callable[[bytes], object], limit: int, what: str, hint: str = "") -> None:
    """Give all of ``source`` to each of ``sinks``; raises ImageError, about ``what``, past ``limit`` bytes."""
    left = limit
    while data := source.read(CHUNK):
        left -= len(data)
        if left < 0:
            raise ImageError(f"{what} holds more than the {limit} bytes that it may", hint=hint)
        for sink in sinks:
            sink(data)
