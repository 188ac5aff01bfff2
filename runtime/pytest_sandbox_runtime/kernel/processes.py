"""PYTEST_DONT_REWRITE. prctl(2), signalfd(2), close_range(2) and pidfd_getfd's kin: what concerns one process."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_uint, c_ulong, c_void_p

from pytest_sandbox_runtime.kernel.libc import bind, bind_syscall, check
from pytest_sandbox_runtime.kernel.light import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SIGNALFD_SIGINFO_SIZE = 128
_SIGSET_SIZE = 128
_CLOEXEC = 0o2000000
_NONBLOCK = 0o4000

_prctl = bind("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_signalfd = bind("signalfd", c_int, c_void_p, c_int)
# The same number on every architecture, as all from 424 on.
_close_range = bind_syscall(436, c_uint, c_uint, c_uint)


class Prctl:
    """The operations of prctl(2) that are used here."""

    SET_PDEATHSIG = 1
    SET_DUMPABLE = 4
    SET_NAME = 15
    SET_SECCOMP = 22
    CAPBSET_READ = 23
    CAPBSET_DROP = 24
    SET_CHILD_SUBREAPER = 36
    SET_NO_NEW_PRIVS = 38
    CAP_AMBIENT = 47


def prctl(operation: int, first: int = 0, second: int = 0) -> int:
    """Ask for one operation on this process."""
    return check(_prctl(operation, first, second, 0, 0), "prctl", str(operation))


def signalfd(signals: Iterable[int]) -> int:
    """Return a non-blocking descriptor that is readable while one of ``signals`` is pending; block them first."""
    mask = 0
    for number in signals:
        mask |= 1 << (number - 1)
    buffer = ctypes.create_string_buffer(mask.to_bytes(8, "little"), _SIGSET_SIZE)
    return check(_signalfd(-1, buffer, _CLOEXEC | _NONBLOCK), "signalfd")


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every descriptor from ``first`` to ``last``, both included."""
    check(_close_range(first, last, 0), "close_range", f"{first}-{last}")


def close_all_but(*kept: int) -> None:
    """Close every descriptor but the standard streams and ``kept``."""
    first = 3
    for fd in sorted(kept):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def become_helper(*kept: int) -> None:
    """Be, in a fork, a process with one task: it has ``kept`` of its parent's descriptors, and dies with that."""
    prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    close_all_but(*kept)


def block(signals: Iterable[int]) -> None:
    """Block ``signals`` in this thread, so that a signalfd can have them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
