"""PYTEST_DONT_REWRITE. How much of what is fetched or sent is there, added up over blobs that come side by side."""

from __future__ import annotations

import threading
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_sandbox_runtime.images.manifest import Descriptor


class Meter:
    """Tells ``tell``, from whatever threads, the bytes that are there and all that there are to be."""

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self._tell = tell
        self._total = 0
        self._there: dict[str, int] = {}
        self._lock = threading.Lock()

    def expect(self, blobs: Iterable[Descriptor]) -> None:
        """Count on these, each once."""
        self._total = sum({blob.digest: blob.size for blob in blobs}.values())

    def at(self, digest: str, position: int) -> None:
        """Say that of the blob ``digest`` so many bytes are there now."""
        with self._lock:
            self._there[digest] = position
            self._tell(sum(self._there.values()), self._total)


class Metered:
    """A file that is read from its begin, whose position ``meter`` is told as that of the blob ``digest``."""

    def __init__(self, file: IO[bytes], meter: Meter, digest: str) -> None:
        self._file = file
        self._meter = meter
        self._digest = digest

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self._file.read(size)
        self._meter.at(self._digest, self._file.tell())
        return data

    def seek(self, position: int) -> int:
        """Go to ``position``, as who begins again does."""
        return self._file.seek(position)
