"""PYTEST_DONT_REWRITE. seccomp(2): loading a classic BPF program that sees every system call of this thread.

What a program leaves to somebody else (SECCOMP_RET_USER_NOTIF) waits until that has answered: seccomp_unotify(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections import namedtuple
from ctypes import POINTER, Structure, byref, c_char_p, c_uint, c_ushort, sizeof

from pytest_sandbox_runtime.kernel.libc import SyscallError, bind_syscall, check

INSTRUCTION = struct.Struct("=HBBI")
_SET_MODE_FILTER = 1
# Else kernels before 5.16 switch off speculative store bypass for whoever is filtered, and all it does gets slower.
_FLAG_SPEC_ALLOW = 4
_FLAG_NEW_LISTENER = 8
# libc has no function for it, and it is older than the numbers that all machines share.
_NUMBERS = {"x86_64": 317, "aarch64": 277}
_MACHINE = os.uname().machine

# struct seccomp_notif: id, pid, flags, and struct seccomp_data: number, architecture, place, six arguments.
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
# struct seccomp_notif_resp: id, val, error, flags.
_RESPONSE = struct.Struct("=QqiI")
_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1

# A system call that waits: who makes it, a thread by its number in the reader's pid namespace, and its arguments.
Notification = namedtuple("Notification", "id pid arguments")


class _Program(Structure):
    """struct sock_fprog."""

    _fields_ = (("length", c_ushort), ("instructions", c_char_p))


# A 32-bit process has other numbers than its machine's: there, 317 is move_pages(2).
_IS_KNOWN = _MACHINE in _NUMBERS and sizeof(c_char_p) == 8
# Bound here and not when first called, which each fork of the supervisor would do anew.
_seccomp = bind_syscall(_NUMBERS.get(_MACHINE, -1), c_uint, c_uint, POINTER(_Program))


def install(program: bytes, *, listen: bool = False) -> int:
    """Load ``program`` for this thread and all that it will start; EACCES without no_new_privs or CAP_SYS_ADMIN.

    With ``listen`` returns a descriptor at which what it leaves to somebody else is heard; EBUSY where somebody hears
    this thread already.
    """
    if not _IS_KNOWN:
        raise SyscallError("seccomp", errno.ENOSYS, _MACHINE)
    fprog = _Program(len(program) // INSTRUCTION.size, program)
    flags = _FLAG_SPEC_ALLOW | (_FLAG_NEW_LISTENER if listen else 0)
    return check(_seccomp(_SET_MODE_FILTER, flags, byref(fprog)), "seccomp")


def next_notification(listener: int) -> Notification:
    """Return a system call that waits, once ``listener`` is readable; raises OSError, with ENOENT where it is gone."""
    buffer = bytearray(_NOTIFICATION.size)
    fcntl.ioctl(listener, _NOTIF_RECV, buffer)
    number, pid, _, _, _, _, *arguments = _NOTIFICATION.unpack(buffer)
    return Notification(number, pid, arguments)


def let_go_on(listener: int, notification: Notification) -> None:
    """Let a system call that waits be made; raises OSError, with ENOENT where who makes it has died."""
    fcntl.ioctl(listener, _NOTIF_SEND, bytearray(_RESPONSE.pack(notification.id, 0, 0, _CONTINUE)))
