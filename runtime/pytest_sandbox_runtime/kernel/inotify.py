"""PYTEST_DONT_REWRITE. inotify(7): a descriptor that is readable when something has happened to a file."""

from __future__ import annotations

import os
from ctypes import c_char_p, c_int, c_uint

from pytest_sandbox_runtime.kernel.libc import bind, check

MODIFY, CLOSE_WRITE, CREATE, MOVED_TO = 0x2, 0x8, 0x100, 0x80

_inotify_init1 = bind("inotify_init1", c_int)
_inotify_add_watch = bind("inotify_add_watch", c_int, c_char_p, c_uint)


def inotify_init() -> int:
    """Return a descriptor, non-blocking and close-on-exec."""
    return check(_inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")


def inotify_add_watch(fd: int, path: str, events: int) -> None:
    """Have ``fd`` tell of ``events`` at ``path``."""
    check(_inotify_add_watch(fd, os.fsencode(path), events), "inotify_add_watch", path)
