"""PYTEST_DONT_REWRITE. mount(2), umount2(2), pivot_root(2) and the calls around them."""

from __future__ import annotations

import os
from ctypes import c_char_p, c_int, c_uint, c_ulong

from pytest_sandbox_runtime.kernel.libc import bind, bind_syscall, check

_mount = bind("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = bind("umount2", c_char_p, c_int)
_pivot_root = bind("pivot_root", c_char_p, c_char_p)
# The same numbers on every architecture, as all from 424 on.
_open_tree = bind_syscall(428, c_int, c_char_p, c_uint)
_move_mount = bind_syscall(429, c_int, c_char_p, c_int, c_char_p, c_uint)
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC, _AT_RECURSIVE = 1, 0o2000000, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 4


class MountFlag:
    """The ``MS_*`` flags of mount(2)."""

    NONE = 0
    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    BIND = 4096
    MOVE = 8192
    REC = 16384
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    RELATIME = 1 << 21


class UmountFlag:
    """The flags of umount2(2)."""

    NONE = 0
    DETACH = 2


def mount(source: str, target: str, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """Attach a file system. A recursive bind leaves the flags of what lies below as they were."""
    said = _mount(os.fsencode(source), os.fsencode(target), fstype.encode(), flags, os.fsencode(options))
    check(said, "mount", target)


def umount(target: str, flags: int = UmountFlag.NONE) -> None:
    """Detach a file system; with ``DETACH`` at once, though it is busy."""
    check(_umount2(os.fsencode(target), flags), "umount2", target)


def open_tree(path: str, directory: int = _AT_FDCWD) -> int:
    """Return a descriptor of a detached copy of the mounts at and below ``path``, to be attached by move_mount.

    An empty ``path`` is ``directory`` itself, which may be a file.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE | (0 if path else _AT_EMPTY_PATH)
    return check(_open_tree(directory, os.fsencode(path), flags), "open_tree", path)


def move_mount(tree: int, target: str) -> None:
    """Attach what open_tree has returned."""
    check(_move_mount(tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH), "move_mount", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make ``new_root`` the root of this mount namespace; both may be "." to stack the old below the new."""
    check(_pivot_root(os.fsencode(new_root), os.fsencode(put_old)), "pivot_root", new_root)
