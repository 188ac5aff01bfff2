"""PYTEST_DONT_REWRITE. openat2(2): an open that cannot be led out of a directory."""

from __future__ import annotations

import os
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_size_t, c_uint64, sizeof
from enum import IntFlag

from pytest_sandbox_runtime.kernel.libc import bind_syscall, check


class OpenHow(Structure):
    """``struct open_how``, as of Linux 5.6."""

    _fields_ = (("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64))


class Resolve(IntFlag):
    """The ``RESOLVE_*`` flags of openat2(2)."""

    NONE = 0
    NO_XDEV = 1
    NO_MAGICLINKS = 2
    NO_SYMLINKS = 4
    BENEATH = 8
    IN_ROOT = 16


# The same number on every architecture, as all from 424 on.
_openat2 = bind_syscall(437, c_int, c_char_p, POINTER(OpenHow), c_size_t)


def openat2(directory: int, path: str, flags: int, mode: int = 0, resolve: int = Resolve.NONE) -> int:
    """Open ``path`` below ``directory``, close-on-exec.

    EAGAIN means that a rename raced with a ".." in a scoped resolution: the path may be tried again. EINVAL, where
    open(2) is silent, means a mode without O_CREAT, or a flag that goes with no other.
    """
    how = OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return check(_openat2(directory, os.fsencode(path), byref(how), sizeof(how)), "openat2", path)


def open_beneath(directory: str, path: str) -> int:
    """Return an O_PATH descriptor of what is at ``path`` below ``directory``; EXDEV means that a link leads out."""
    top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat2(top, path, os.O_PATH, 0, Resolve.BENEATH | Resolve.NO_MAGICLINKS)
    finally:
        os.close(top)
