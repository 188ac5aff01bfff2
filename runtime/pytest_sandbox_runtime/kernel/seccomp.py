"""PYTEST_DONT_REWRITE. seccomp(2): loading a classic BPF program that sees every system call of this thread."""

from __future__ import annotations

import errno
import os
import struct
from ctypes import POINTER, Structure, byref, c_char_p, c_uint, c_ushort, sizeof

from pytest_sandbox_runtime.kernel.libc import SyscallError, bind_syscall, check

INSTRUCTION = struct.Struct("=HBBI")
_SET_MODE_FILTER = 1
# Else kernels before 5.16 switch off speculative store bypass for whoever is filtered, and all it does gets slower.
_FLAG_SPEC_ALLOW = 4
# libc has no function for it, and it is older than the numbers that all machines share.
_NUMBERS = {"x86_64": 317, "aarch64": 277}
_MACHINE = os.uname().machine


class _Program(Structure):
    """struct sock_fprog."""

    _fields_ = (("length", c_ushort), ("instructions", c_char_p))


# A 32-bit process has other numbers than its machine's: there, 317 is move_pages(2).
_IS_KNOWN = _MACHINE in _NUMBERS and sizeof(c_char_p) == 8
# Bound here and not when first called, which each fork of the supervisor would do anew.
_seccomp = bind_syscall(_NUMBERS.get(_MACHINE, -1), c_uint, c_uint, POINTER(_Program))


def install(program: bytes) -> None:
    """Load ``program`` for this thread and all that it will start; EACCES without no_new_privs or CAP_SYS_ADMIN."""
    if not _IS_KNOWN:
        raise SyscallError("seccomp", errno.ENOSYS, _MACHINE)
    fprog = _Program(len(program) // INSTRUCTION.size, program)
    check(_seccomp(_SET_MODE_FILTER, _FLAG_SPEC_ALLOW, byref(fprog)), "seccomp")
