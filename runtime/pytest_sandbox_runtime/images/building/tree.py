"""PYTEST_DONT_REWRITE. Directories that are merged, read as the one tree that overlayfs would show.

A build context is such a tree of one directory, the files of an image one of all its layers. No name leads out of it:
symbolic links are followed as from inside.
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.lowers import look_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.lowers import Seen

_MAX_LINKS = 40


class MergedTree:
    """The directories ``lowers``, the topmost first. Names are relative to its root, which is "."."""

    def __init__(self, lowers: tuple[str, ...]) -> None:
        self.lowers = lowers

    def seen(self, name: str) -> Seen | None:
        """Return what is at ``name``, in which no directory is a symbolic link; None where nothing is."""
        above, _, _ = name.rpartition("/")
        if above and not self._is_directory(above):
            return None
        return look_up(self._merged(above), posixpath.basename(name)) if name != "." else look_up(self.lowers, ".")

    def _merged(self, directory: str) -> tuple[str, ...]:
        found = self.seen(directory or ".")
        return found.merged if found is not None else ()

    def _is_directory(self, name: str) -> bool:
        found = self.seen(name)
        return found is not None and stat.S_ISDIR(found.status.st_mode)

    def walk(self, name: str) -> Iterator[tuple[str, Seen]]:
        """Yield ``name`` and all below it in order, each with what is there, a directory before what is in it."""
        found = self.seen(name)
        if found is not None:
            yield from _walk("" if name == "." else name, found)

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        """Return the name of ``path``, seen from the root, with no symbolic link in it; what is missing stays as said.

        Raises ImageError where links go in circles.
        """
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                done = done[:-1]
                continue
            name = "/".join((*done, part))
            found = self.seen(name)
            if found is None or not stat.S_ISLNK(found.status.st_mode) or not (pending or follow_last):
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise ImageError(f"too many symbolic links on the way to {path}")
            target = os.readlink(found.place)
            if target.startswith("/"):
                done = []
            pending += [step for step in reversed(target.split("/")) if step not in ("", ".")]
        return "/".join(done) or "."

    def read(self, path: str) -> str:
        """Return the text of the file ``path``; "" where there is none."""
        found = self.seen(self.resolve(path))
        if found is None or not stat.S_ISREG(found.status.st_mode):
            return ""
        with open(found.place, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()


def _walk(name: str, found: Seen) -> Iterator[tuple[str, Seen]]:
    yield name or ".", found
    if not stat.S_ISDIR(found.status.st_mode):
        return
    for entry in sorted({entry for place in found.merged for entry in os.listdir(place)}):
        below = look_up(found.merged, entry)
        if below is not None:
            yield from _walk(f"{name}/{entry}" if name else entry, below)
