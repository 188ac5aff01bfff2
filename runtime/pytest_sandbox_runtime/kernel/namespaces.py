"""PYTEST_DONT_REWRITE. unshare(2) and setns(2), which the standard library has from 3.12 on only."""

from __future__ import annotations

from ctypes import c_char_p, c_int, c_size_t

from pytest_sandbox_runtime.kernel.libc import bind, check

_unshare = bind("unshare", c_int)
_setns = bind("setns", c_int, c_int)
_sethostname = bind("sethostname", c_char_p, c_size_t)


class CloneFlag:
    """The ``CLONE_NEW*`` flags of namespaces(7)."""

    NEWTIME = 0x80
    NEWNS = 0x20000
    NEWCGROUP = 0x2000000
    NEWUTS = 0x4000000
    NEWIPC = 0x8000000
    NEWUSER = 0x10000000
    NEWPID = 0x20000000
    NEWNET = 0x40000000


def _names(flags: int) -> str:
    return "|".join(f"CLONE_{name}" for name, flag in vars(CloneFlag).items() if name.isupper() and flag & flags)


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags`` for new ones; ``NEWPID`` concerns the next child only."""
    if _unshare(flags):
        check(-1, "unshare", _names(flags))


def setns(fd: int, flags: int = 0) -> None:
    """Join the namespace behind ``fd``; behind a pidfd (Linux 5.8) all those of its process that ``flags`` names."""
    if _setns(fd, flags):
        check(-1, "setns", _names(flags))


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace: at most 64 bytes."""
    encoded = name.encode()
    check(_sethostname(encoded, len(encoded)), "sethostname", name)
