"""PYTEST_DONT_REWRITE. What names mean in a run: tags pinned to digests, suites of packages to days."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

IMAGES, PACKAGES = "images", "packages"

# A table, and a name in it: ("images", "docker.io/library/debian:12").
Name = tuple[str, str]


class Lock:
    """The ``pins`` that were written down, and what a run makes of them.

    With ``adds``, names that are not pinned yet are, to what they mean now; with ``renews``, all that are used.
    ``used`` is what was asked for, ``moved`` what would mean something else now, ``unpinned`` what has no pin.
    """

    def __init__(self, pins: Mapping[Name, str], *, adds: bool = False, renews: bool = False) -> None:
        self.pins = dict(pins)
        self.adds = adds or renews
        self.renews = renews
        self.used: dict[Name, str] = {}
        self.moved: dict[Name, str] = {}
        self.unpinned: set[Name] = set()

    def meaning(self, name: Name, now: Callable[[], str | None]) -> str | None:
        """Return what ``name`` is pinned to, None where it is not; ``now`` tells what it means now, None if unknown."""
        if name in self.used:
            return self.used[name]
        pinned = None if self.renews else self.pins.get(name)
        current = now() if self.adds else None
        if pinned is not None and current not in (None, pinned):
            self.moved[name] = str(current)
        pinned = pinned or current
        if pinned is None:
            self.unpinned.add(name)
        else:
            self.used[name] = pinned
        return pinned

    def after(self) -> dict[Name, str]:
        """Return the pins to be written down when the run has ended."""
        return self.used if self.renews else {**self.pins, **self.used}

    def add(self, other: Lock) -> None:
        """Take in what another process of the run has made of the same pins."""
        self.used.update(other.used)
        self.moved.update(other.moved)
        self.unpinned |= other.unpinned
