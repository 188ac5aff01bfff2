"""PYTEST_DONT_REWRITE. What the lower directories of an overlay show at a name, by the kernel's overlayfs.rst."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_WHITEOUT = ("trusted.overlay.whiteout", "user.overlay.whiteout")
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
