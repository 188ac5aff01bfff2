"""PYTEST_DONT_REWRITE. How much may come out of an archive, which may be a trap."""

from __future__ import annotations

from typing import NamedTuple

from pytest_sandbox_runtime.errors import ImageError

RAISE_BYTES = "if it is no trap, load it with a larger max_bytes: pytest-sandbox load --max-bytes SIZE"
_RAISE_RATIO = "if it is no trap, load it with a larger max_ratio: pytest-sandbox load --max-ratio N"
_HARMLESS = 256 << 20


class Limits(NamedTuple):
    """Bytes, and times what went in (of a packed one's first 256 MiB, any)."""

    max_bytes: int = 64 << 30
    max_ratio: int = 2000

    @property
    def unchecked(self) -> int:
        """Of how many bytes nothing needs to be asked."""
        return min(self.max_bytes, _HARMLESS)

    def check(self, name: str, size: int, packed: int | None) -> None:
        """Raise ImageError, about ``name``, where ``size`` bytes of ``packed`` (None: it is plain) are too many."""
        if size > self.max_bytes:
            raise ImageError(f"{name} holds more than the {self.max_bytes} bytes that it may", hint=RAISE_BYTES)
        if packed is not None and size > max(_HARMLESS, packed * self.max_ratio):
            times = f"more than {self.max_ratio} times as much"
            raise ImageError(f"{name} holds {size} bytes in {packed}, {times}", hint=_RAISE_RATIO)
