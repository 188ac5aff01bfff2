"""PYTEST_DONT_REWRITE. The directories that sandboxes are made in, in memory or on disk.

Making and removing directories costs a disk's file system more than all the mounts of a sandbox, and most sandboxes
write nothing: a directory that is as new after its sandbox's death is used for another. Where nobody changes what lies
below, so are its overlays, which by then have looked up what every sandbox looks up.
"""

from __future__ import annotations

import errno
import os

from pytest_sandbox_runtime.kernel.mounts import UmountFlag, umount
from pytest_sandbox_runtime.rootfs.steps import carry_out
from pytest_sandbox_runtime.supervisor.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_sandbox_runtime.rootfs.steps import Step

_SPARE = 16
# What overlayfs itself leaves: its identity in upper, and below work a mark by which it refuses a volatile one again.
_OWN_ATTRIBUTES = {"trusted.overlay.uuid", "user.overlay.uuid", "trusted.overlay.impure", "user.overlay.impure"}
_LEFT_IN_WORK = ("work/incompat/volatile", "work/incompat")


class Directory:
    """One of a sandbox. Where ``is_mounted`` its overlays are, in the supervisor's mount namespace and its forks'."""

    def __init__(self, path: str, overlays: int, kind: bytes) -> None:
        self.path = path
        self.overlays = overlays
        self.kind = kind
        self.is_mounted = False


class Directories:
    """Directories below ``parent`` with ``root``, and ``upperN`` and ``workN`` for each overlay, all as new."""

    def __init__(self, parent: str) -> None:
        self._parent = parent
        self._made = 0
        self._spare: dict[bytes, list[Directory]] = {}

    def take(self, kind: bytes, overlays: int) -> Directory:
        """Return one for so many overlays; one whose overlays are mounted is for the same ``kind`` as before."""
        spare = self._spare.get(kind)
        return spare.pop() if spare else self._make(kind, overlays)

    def _make(self, kind: bytes, overlays: int) -> Directory:
        self._made += 1
        path = f"{self._parent}/{self._made}"
        os.mkdir(path, 0o755)
        os.mkdir(f"{path}/root", 0o755)
        for index in range(overlays):
            os.mkdir(f"{path}/upper{index}", 0o755)
            os.mkdir(f"{path}/work{index}", 0o755)
        return Directory(path, overlays, kind)

    def give_back(self, directory: Directory) -> None:
        """Keep ``directory``, whose sandbox is dead, for another if nothing was written to it; else remove it."""
        spare = self._spare.setdefault(directory.kind, [])
        if len(spare) < _SPARE and all(_is_as_new(directory, index) for index in range(directory.overlays)):
            spare.append(directory)
        else:
            unmount(directory)
            remove_tree(directory.path)

    def unmount_spare(self) -> None:
        """Unmount what is mounted for sandboxes to come: nobody can remove a directory that something is mounted on."""
        for spare in self._spare.values():
            for directory in spare:
                if directory.is_mounted:
                    unmount(directory)


def mount_stack(directory: Directory, steps: Iterable[Step]) -> None:
    """Mount the overlays of ``directory`` for all its sandboxes to come; raises OSError."""
    os.chdir(directory.path)
    try:
        for step in steps:
            carry_out(step)
    except OSError:
        unmount(directory)
        raise
    finally:
        os.chdir("/")
    directory.is_mounted = True


def unmount(directory: Directory) -> None:
    """Unmount the overlays of ``directory``, where they are mounted; what is on them goes with them."""
    try:
        umount(f"{directory.path}/root", UmountFlag.DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    directory.is_mounted = False


def _is_as_new(directory: Directory, index: int) -> bool:
    upper, work = f"{directory.path}/upper{index}", f"{directory.path}/work{index}"
    status = os.stat(upper)
    if status.st_mode & 0o7777 != 0o755 or (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        return False
    # An entry or an attribute of "/" itself is all that a sandbox can leave.
    is_as_new = not os.listdir(upper) and _OWN_ATTRIBUTES.issuperset(os.listxattr(upper))
    return is_as_new and (directory.is_mounted or _clear(work))


def _clear(work: str) -> bool:
    for name in _LEFT_IN_WORK:
        try:
            os.rmdir(f"{work}/{name}")
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
