"""PYTEST_DONT_REWRITE. capabilities(7) of the calling thread: capget(2), capset(2) and the prctl(2) around them."""

from __future__ import annotations

from collections import namedtuple
from ctypes import c_int, c_uint32, c_ulong

from pytest_sandbox_runtime.kernel.libc import bind, check
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_VERSION_3 = 0x20080522
# Made here and not in create_string_buffer: each fork of the supervisor would make the types anew.
_Header = c_uint32 * 2
# The low words of the three sets come first, then the high words.
_Words = c_uint32 * 6
_MOST = 64
_AMBIENT_CLEAR_ALL = 4

_capget = bind("capget", _Header, _Words)
_capset = bind("capset", _Header, _Words)
# Some 70 calls for each sandbox, which with prctl's three other arguments and its naming of errors cost twice as much.
_capbset = bind("prctl", c_int, c_ulong)

CapabilitySets = namedtuple("CapabilitySets", "effective permitted inheritable")


class Capability:
    """The capabilities of capabilities(7) without their ``CAP_``; the value is the number of the bit."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    LINUX_IMMUTABLE = 9
    NET_BIND_SERVICE = 10
    NET_BROADCAST = 11
    NET_ADMIN = 12
    NET_RAW = 13
    IPC_LOCK = 14
    IPC_OWNER = 15
    SYS_MODULE = 16
    SYS_RAWIO = 17
    SYS_CHROOT = 18
    SYS_PTRACE = 19
    SYS_PACCT = 20
    SYS_ADMIN = 21
    SYS_BOOT = 22
    SYS_NICE = 23
    SYS_RESOURCE = 24
    SYS_TIME = 25
    SYS_TTY_CONFIG = 26
    MKNOD = 27
    LEASE = 28
    AUDIT_WRITE = 29
    AUDIT_CONTROL = 30
    SETFCAP = 31
    MAC_OVERRIDE = 32
    MAC_ADMIN = 33
    SYSLOG = 34
    WAKE_ALARM = 35
    BLOCK_SUSPEND = 36
    AUDIT_READ = 37
    PERFMON = 38
    BPF = 39
    CHECKPOINT_RESTORE = 40


def mask(capabilities: Iterable[int]) -> int:
    """Return the set that has ``capabilities``, as the kernel writes it: a bit for each."""
    bits = 0
    for capability in capabilities:
        bits |= 1 << capability
    return bits


def capget() -> CapabilitySets:
    """Return the effective, permitted and inheritable sets of this thread, as masks."""
    words = _Words()
    check(_capget(_Header(_VERSION_3), words), "capget")
    return CapabilitySets(*(low | high << 32 for low, high in zip(words[:3], words[3:], strict=True)))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three sets of this thread, as masks; the permitted set only ever shrinks."""
    sets = (effective, permitted, inheritable)
    words = _Words(*(bits & 0xFFFFFFFF for bits in sets), *(bits >> 32 for bits in sets))
    check(_capset(_Header(_VERSION_3), words), "capset", f"permitted={permitted:#x}")


def bounding() -> int:
    """Return the bounding set, what exec can still give, as a mask."""
    bits = 0
    for capability in range(_MOST):
        has = _capbset(Prctl.CAPBSET_READ, capability)
        if has == -1:
            break  # EINVAL: this kernel has no more
        bits |= has << capability
    return bits


def drop_bounding(capabilities: Iterable[int]) -> None:
    """Take ``capabilities`` out of the bounding set for good; EPERM without CAP_SETPCAP."""
    for capability in capabilities:
        check(_capbset(Prctl.CAPBSET_DROP, capability), "prctl", f"CAPBSET_DROP, {capability}")


def clear_ambient() -> None:
    """Empty the ambient set, which exec of a program without privileges of its own would keep."""
    prctl(Prctl.CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
