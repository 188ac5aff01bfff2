"""PYTEST_DONT_REWRITE. What the lower directories of an overlay show, by the kernel's overlayfs.rst."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from pytest_sandbox_runtime.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_WHITEOUT = ("trusted.overlay.whiteout", "user.overlay.whiteout")
_MAX_LINKS = 40
_NO_XATTR = (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES)


class Seen(NamedTuple):
    """What the lower layers show at one name: where it is, and the directories that are merged there, top first."""

    place: str
    status: os.stat_result
    merged: tuple[str, ...]


def look_up(lowers: Iterable[str], name: str) -> Seen | None:
    """Return what overlayfs would show at ``name`` in these merged directories."""
    top: tuple[str, os.stat_result] | None = None
    merged: list[str] = []
    for lower in lowers:
        place = os.path.join(lower, name)
        status = _status(place)
        if status is None:
            continue
        if is_whiteout(status) or _is_marked_whiteout(lower, place, status):
            break
        top = top or (place, status)
        if not stat.S_ISDIR(status.st_mode):
            break
        merged.append(place)
        if is_opaque(place):
            break
    return Seen(*top, tuple(merged)) if top else None


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this is how overlayfs writes down that a name was removed."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: int | str) -> bool:
    """Whether nothing is seen of the directories below ``directory``, a path or a descriptor."""
    return any(get_xattr(directory, name) == b"y" for name in OPAQUE)


def _is_marked_whiteout(directory: str, path: str, status: os.stat_result) -> bool:
    # The other form, since Linux 6.7, of layers that were made where no device can be.
    is_empty = stat.S_ISREG(status.st_mode) and status.st_size == 0
    return is_empty and has_marked_whiteouts(directory) and has_whiteout_mark(path)


def has_marked_whiteouts(directory: int | str) -> bool:
    """Whether overlayfs looks for whiteouts that are empty files with an attribute in ``directory``."""
    return any(get_xattr(directory, name) == b"x" for name in OPAQUE)


def has_whiteout_mark(file: int | str) -> bool:
    """Whether the empty ``file`` has the attribute that makes it a whiteout."""
    return any(get_xattr(file, name) is not None for name in _WHITEOUT)


def get_xattr(file: int | str, name: str) -> bytes | None:
    """Return an extended attribute of a file or directory, None where it has none or they cannot be had."""
    try:
        return os.getxattr(file, name)
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise
        return None


class MergedTree:
    """The directories ``lowers``, the topmost first, read as the one tree that overlayfs would show.

    Names are relative to its root, which is ".". None leads out of it: links are followed as from inside.
    """

    def __init__(self, lowers: tuple[str, ...]) -> None:
        self.lowers = lowers

    def seen(self, name: str) -> Seen | None:
        """Return what is at ``name``, in which no directory is a symbolic link; None where nothing is."""
        if name == ".":
            return look_up(self.lowers, ".")
        above, _, last = name.rpartition("/")
        directory = self.seen(above or ".")
        return None if directory is None else look_up(directory.merged, last)

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
