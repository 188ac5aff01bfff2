"""PYTEST_DONT_REWRITE. The verbs of a mount plan and what carries them out, inside the sandbox's mount namespace.

A plan is a tuple of steps, a step a tuple of a verb and its operands: values that can be printed, compared and sent.
Relative paths are relative to the sandbox's own directory, so one plan serves any number of sandboxes.
"""

from __future__ import annotations

import errno
import os
import stat

from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.mounts import MountFlag, UmountFlag, mount, move_mount, open_tree, pivot_root, umount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Step = tuple[str | int | bytes, ...]


def _mkdir(path: str, mode: int) -> None:
    os.mkdir(path, mode)


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def _copy(source: str, target: str) -> None:
    # With whiteouts, owners, links and holes.
    status = os.spawnvp(os.P_WAIT, "cp", ["cp", "-aT", "--reflink=auto", source, target])  # noqa: S606  one program
    if status != 0:
        raise OSError(errno.EIO, f"cp ended with status {status}", source)
    # Not the attributes that overlayfs reads: xattr.conf(5) has cp leave them.
    for directory, _, _ in os.walk(source):
        for name in os.listxattr(directory):
            if ".overlay." in name:
                os.setxattr(target + directory[len(source) :], name, os.getxattr(directory, name))


def mount_proc(target: str, flags: int) -> None:
    """Mount a fresh proc, read-only where the kernel grants no other: in a sandbox that has no other itself."""
    try:
        mount("proc", target, "proc", flags)
    except SyscallError as error:
        if error.errno != errno.EPERM:
            raise
        mount("proc", target, "proc", flags | MountFlag.RDONLY)


def _bind(source: str, target: str) -> None:
    mount(source, target, "", MountFlag.BIND | MountFlag.REC)


def _bind_read_only(source: str, target: str, kept: int) -> None:
    mount(source, target, "", MountFlag.BIND | MountFlag.REC)
    # A bind takes no other flag at first; what the source has locked (nosuid, nodev) must be named again.
    mount("", target, "", MountFlag.BIND | MountFlag.REMOUNT | MountFlag.RDONLY | kept)


_held: dict[str, int] = {}


def _hold(source: str, target: str, subpath: str) -> None:
    # Copied while the host is in sight, placed when it no longer is: then no link in the target leads out.
    if not subpath:
        _held[target] = open_tree(source)
        return
    from pytest_sandbox_runtime.kernel.files import open_beneath

    # Other sandboxes may write to it at this moment: what was looked at is what is mounted.
    part = open_beneath(source, subpath)
    try:
        _held[target] = open_tree("", part)
    finally:
        os.close(part)


def _place(target: str, read_only: bool) -> None:  # noqa: FBT001
    held = _held.pop(target)
    is_directory = stat.S_ISDIR(os.fstat(held).st_mode)
    os.makedirs(target if is_directory else os.path.dirname(target), exist_ok=True)
    if not is_directory and not os.path.exists(target):
        _write(target, b"")
    move_mount(held, target)
    os.close(held)
    if read_only:
        # In a user namespace the flags that the host has set are locked: they must be named again.
        kept = os.statvfs(target).f_flag & (MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC)
        mount("", target, "", MountFlag.BIND | MountFlag.REMOUNT | MountFlag.RDONLY | kept)


def _tmpfs(target: str, flags: int, options: str) -> None:
    os.makedirs(target, exist_ok=True)
    mount("tmpfs", target, "tmpfs", flags, options)


def _pivot(path: str) -> None:
    os.chdir(path)
    pivot_root(".", ".")
    umount(".", UmountFlag.DETACH)
    os.chdir("/")


VERBS: dict[str, Callable[..., None]] = {
    "mkdir": _mkdir,
    "copy": _copy,
    "mount": mount,
    "proc": mount_proc,
    "bind": _bind,
    "bind-ro": _bind_read_only,
    "chdir": os.chdir,
    "hold": _hold,
    "place": _place,
    "tmpfs": _tmpfs,
    "pivot": _pivot,
}


def describe(step: Step) -> str:
    """Return ``step`` as a line to read."""
    return " ".join(operand if isinstance(operand, str) else repr(operand) for operand in step)


def carry_out(step: Step) -> None:
    """Do one step; raises OSError."""
    VERBS[str(step[0])](*step[1:])
