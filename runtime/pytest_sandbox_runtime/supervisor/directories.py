"""PYTEST_DONT_REWRITE. The directories that sandboxes are made in, in memory or on disk.

Making and removing directories costs a disk's file system more than all the mounts of a sandbox, and most sandboxes
write nothing: a directory that is as new after its sandbox's death is used for another.
"""

from __future__ import annotations

import os
from collections import namedtuple

from pytest_sandbox_runtime.supervisor.removal import remove_tree

_SPARE = 16
# What overlayfs itself leaves: its identity in upper, and below work a mark by which it refuses a volatile one again.
_OWN_ATTRIBUTES = {"trusted.overlay.uuid", "user.overlay.uuid", "trusted.overlay.impure", "user.overlay.impure"}
_LEFT_IN_WORK = ("work/incompat/volatile", "work/incompat")

Directory = namedtuple("Directory", "path overlays")


class Directories:
    """Directories below ``parent`` with ``root``, and ``upperN`` and ``workN`` for each overlay, all as new."""

    def __init__(self, parent: str) -> None:
        self._parent = parent
        self._made = 0
        self._spare: dict[int, list[Directory]] = {}

    def take(self, overlays: int) -> Directory:
        """Return one for so many overlays."""
        spare = self._spare.get(overlays)
        return spare.pop() if spare else self._make(overlays)

    def _make(self, overlays: int) -> Directory:
        self._made += 1
        path = f"{self._parent}/{self._made}"
        os.mkdir(path, 0o755)
        os.mkdir(f"{path}/root", 0o755)
        for index in range(overlays):
            os.mkdir(f"{path}/upper{index}", 0o755)
            os.mkdir(f"{path}/work{index}", 0o755)
        return Directory(path, overlays)

    def give_back(self, directory: Directory) -> None:
        """Keep ``directory``, whose sandbox is dead, for another if nothing was written to it; else remove it."""
        spare = self._spare.setdefault(directory.overlays, [])
        if len(spare) < _SPARE and all(_is_as_new(directory.path, index) for index in range(directory.overlays)):
            spare.append(directory)
        else:
            remove_tree(directory.path)


def _is_as_new(path: str, index: int) -> bool:
    upper, work = f"{path}/upper{index}", f"{path}/work{index}"
    status = os.stat(upper)
    if status.st_mode & 0o7777 != 0o755 or (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        return False
    # An entry or an attribute of "/" itself is all that a sandbox can leave.
    return not os.listdir(upper) and _OWN_ATTRIBUTES.issuperset(os.listxattr(upper)) and _clear(work)


def _clear(work: str) -> bool:
    for name in _LEFT_IN_WORK:
        try:
            os.rmdir(f"{work}/{name}")
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
