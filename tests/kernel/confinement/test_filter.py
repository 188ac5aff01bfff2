"""What the filter refuses and what it lets through.

A call that is to be refused gets arguments that are wrong anyway: should the filter fail, nothing happens to the host.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.kernel.libc import bind
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag
from tests.kernel.confinement.confined import confined, in_child

if TYPE_CHECKING:
    from collections.abc import Callable

MACHINE = platform.machine()
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
OPEN_TREE_ATTR = 467
# Those that libc has no function for, or one that looks at the arguments before the kernel does.
DENIED_BY_NUMBER = {
    "bpf": {"x86_64": 321, "aarch64": 280},
    "clock_settime": {"x86_64": 227, "aarch64": 112},
    "io_uring_setup": {"x86_64": 425, "aarch64": 425},
    "kexec_load": {"x86_64": 246, "aarch64": 104},
    "keyctl": {"x86_64": 250, "aarch64": 219},
    "perf_event_open": {"x86_64": 298, "aarch64": 241},
    "settimeofday": {"x86_64": 164, "aarch64": 170},
    "userfaultfd": {"x86_64": 323, "aarch64": 282},
}
ADDR_NO_RANDOMIZE = 0x40000
PTRACE_TRACEME, PTRACE_CONT = 0, 7

_syscall = bind("syscall", ctypes.c_long, *[ctypes.c_long] * 6)
_ptrace = bind("ptrace", *[ctypes.c_long] * 4)

pytestmark = pytest.mark.needs("seccomp", "syscall-numbers")
only_x86_64 = pytest.mark.needs("x86_64")


def said_by(name: str, *arguments: int) -> str:
    function = ctypes.CDLL(None, use_errno=True)[name]
    function.restype = ctypes.c_int
    return outcome(function(*map(ctypes.c_long, arguments)))


def said_by_number(number: int, *arguments: int) -> str:
    return outcome(_syscall(number, *arguments, *[0] * (6 - len(arguments))))


def outcome(result: int) -> str:
    return errno.errorcode[ctypes.get_errno()] if result == -1 else "allowed"


DENIED_BY_NAME = """
    acct delete_module fanotify_init fsconfig fsmount fsopen fspick init_module ioperm iopl klogctl mount mount_setattr
    move_mount open_by_handle_at open_tree pidfd_getfd pivot_root process_madvise quotactl reboot setdomainname
    sethostname setns swapoff swapon umount2 unshare
""".split()  # noqa: SIM905  a list is thirty lines
# What older libcs have no function for; the same numbers on every machine.
NEW = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
}


@pytest.mark.parametrize("name", DENIED_BY_NAME)
def test_what_docker_denies_is_denied(name: str, enter: Callable[[], None]) -> None:
    if hasattr(ctypes.CDLL(None), name):
        said = confined(lambda: said_by(name, -1, -1, -1, -1, -1), enter)
    else:
        said = confined(lambda: said_by_number(NEW[name], -1, -1, -1, -1, -1), enter)
    assert said == "EPERM"


@pytest.mark.parametrize("name", DENIED_BY_NUMBER)
def test_what_docker_denies_is_denied_by_number(name: str, enter: Callable[[], None]) -> None:
    number = DENIED_BY_NUMBER[name][MACHINE]
    assert confined(lambda: said_by_number(number, -1, -1, -1, -1, -1), enter) == "EPERM"


@pytest.mark.parametrize("flag", [CloneFlag.NEWUSER, CloneFlag.NEWNS, CloneFlag.NEWPID])
def test_no_namespace_can_be_made(flag: int, enter: Callable[[], None]) -> None:
    def attempt() -> str:
        mother = os.getpid()
        said = said_by_number(CLONE[MACHINE], flag | signal.SIGCHLD)
        if os.getpid() != mother:
            os._exit(1)
        return f"clone: {said}, unshare: {said_by('unshare', flag)}"

    assert confined(attempt, enter) == "clone: EPERM, unshare: EPERM"


def test_clone3_looks_missing_so_that_libc_falls_back_to_clone(enter: Callable[[], None]) -> None:
    assert confined(lambda: said_by_number(CLONE3), enter) == "ENOSYS"


def test_calls_newer_than_the_filter_look_missing(enter: Callable[[], None]) -> None:
    assert confined(lambda: said_by_number(OPEN_TREE_ATTR, -1), enter) == "ENOSYS"


def test_personality_can_be_asked_but_not_switch_off_address_randomization(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        return f"{said_by('personality', 0xFFFFFFFF)} {said_by('personality', ADDR_NO_RANDOMIZE)}"

    assert confined(attempt, enter) == "allowed EPERM"


def test_only_sockets_to_the_hypervisor_and_to_the_kernels_ciphers_are_denied(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        families = (socket.AF_UNIX, socket.AF_INET, socket.AF_NETLINK, socket.AF_VSOCK, socket.AF_ALG)
        return " ".join(said_by("socket", family, socket.SOCK_RAW if family == 16 else 1, 0) for family in families)

    assert confined(attempt, enter) == "allowed allowed allowed EPERM EPERM"


def test_programs_and_threads_run(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        said = []
        thread = threading.Thread(target=lambda: said.append("thread"))
        thread.start()
        thread.join()
        return " ".join([*said, subprocess.run(["echo", "program"], capture_output=True, text=True, check=True).stdout])

    assert confined(attempt, enter) == "thread program\n"


def test_a_debugger_can_trace_its_child(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        pid = os.fork()
        if pid == 0:
            _ptrace(PTRACE_TRACEME, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(7)
        stopped = os.waitpid(pid, 0)[1]
        os.kill(pid, signal.SIGKILL) if not os.WIFSTOPPED(stopped) else _ptrace(PTRACE_CONT, pid, 0, 0)
        return f"{signal.Signals(os.WSTOPSIG(stopped)).name} {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"

    assert confined(attempt, enter) == "SIGUSR1 7"


@only_x86_64
def test_x32_calls_are_refused(enter: Callable[[], None]) -> None:
    # EPERM is the filter's; a kernel without x32 says ENOSYS.
    assert confined(lambda: said_by_number(0x40000000 + 39), enter) == "EPERM"


@only_x86_64
def test_32_bit_calls_kill(enter: Callable[[], None]) -> None:
    # A kernel that runs no 32-bit code kills by itself.
    unconfined = in_child(ask_for_pid_by_32_bit_call)
    assert confined(ask_for_pid_by_32_bit_call, enter) == ("SIGSYS" if unconfined == "answered" else unconfined)


def ask_for_pid_by_32_bit_call() -> str:
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    pid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    return "answered" if pid == os.getpid() else "not answered"
