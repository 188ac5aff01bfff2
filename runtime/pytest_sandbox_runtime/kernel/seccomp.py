"""PYTEST_DONT_REWRITE. seccomp(2): loading a classic BPF program that sees every system call of this thread."""

from __future__ import annotations

import errno
import os
import struct
from ctypes import addressof, c_uint, c_void_p, create_string_buffer

from pytest_sandbox_runtime.kernel.libc import SyscallError, bind_syscall, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

INSTRUCTION = struct.Struct("=HBBI")
_FPROG = struct.Struct("HP")
_FPROG_64 = 16
_SET_MODE_FILTER = 1
# Else kernels before 5.16 switch off speculative store bypass for whoever is filtered, and all it does gets slower.
_FLAG_SPEC_ALLOW = 4
# libc has no function for it, and it is older than the numbers that all machines share.
_NUMBERS = {"x86_64": 317, "aarch64": 277}


def install(program: bytes) -> None:
    """Load ``program`` for this thread and all that it will start; EACCES without no_new_privs or CAP_SYS_ADMIN."""
    instructions = create_string_buffer(program, len(program))
    fprog = _FPROG.pack(len(program) // INSTRUCTION.size, addressof(instructions))
    seccomp = _bind_seccomp()
    check(seccomp(_SET_MODE_FILTER, _FLAG_SPEC_ALLOW, create_string_buffer(fprog, len(fprog))), "seccomp")


def _bind_seccomp() -> Callable[..., int]:
    machine = os.uname().machine
    # A 32-bit process has other numbers than its machine's: there, 317 is move_pages(2).
    if machine not in _NUMBERS or _FPROG.size != _FPROG_64:
        raise SyscallError("seccomp", errno.ENOSYS, machine)
    return bind_syscall(_NUMBERS[machine], c_uint, c_uint, c_void_p)
