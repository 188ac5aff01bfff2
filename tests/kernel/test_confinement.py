"""What a confined process can and cannot do. Each test's process is a fork of its own, as nothing of this is undone.

A call that is to be refused gets arguments that are wrong anyway: should the filter fail, nothing happens to the host.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.kernel.capabilities import (
    Capability,
    bounding,
    capget,
    capset,
    clear_ambient,
    drop_bounding,
    mask,
)
from pytest_sandbox_runtime.kernel.libc import SyscallError, bind
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl
from pytest_sandbox_runtime.kernel.seccomp import let_go_on, next_notification
from pytest_sandbox_runtime.supervisor.confinement import (
    DEFAULT_CAPABILITIES,
    confine,
    cut_bounding_set,
    seccomp_program,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MACHINE = platform.machine()
DEFAULT = mask(DEFAULT_CAPABILITIES)
NOBODY = 65534
AMBIENT_RAISE = 2
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


def in_child(act: Callable[[], str]) -> str:
    """Return what ``act`` returned in a fork of this process, or the words of the error or signal that ended it."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 on, with threads: the child starts none of its own
        pid = os.fork()
    if pid == 0:
        answer_and_exit(act, writer)
    os.close(writer)
    with os.fdopen(reader) as answers:
        said = answers.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return said or signal.Signals(-status).name


def answer_and_exit(act: Callable[[], str], writer: int) -> None:
    try:
        said = act()
    except BaseException:
        said = traceback.format_exc()
    os.write(writer, said.encode())
    os._exit(0)


def confined(act: Callable[[], str], enter: Callable[[], None], *, keep_permitted: bool = True) -> str:
    """Return what ``act`` says once confined. Capabilities are kept, so that a refusal is the filter's."""

    def all_of_it() -> str:
        enter()
        confine(seccomp_program(), keep_permitted=keep_permitted)
        return act()

    return in_child(all_of_it)


def stay_root() -> None:
    """Confine root as it is."""


def become_user_with_namespace(mapped: int = 0) -> None:
    """Become an ordinary user, and ``mapped`` in a user namespace of that user's."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl(Prctl.SET_DUMPABLE, 1)  # else /proc/self belongs to root
    uid, gid = os.geteuid(), os.getegid()
    unshare(CloneFlag.NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{mapped} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{mapped} {gid} 1")


@pytest.fixture(
    params=[
        pytest.param(stay_root, marks=pytest.mark.needs("root"), id="root"),
        pytest.param(become_user_with_namespace, marks=pytest.mark.needs("user-namespaces"), id="user-namespace"),
    ]
)
def enter(request: pytest.FixtureRequest) -> Any:
    return request.param


def said_by(name: str, *arguments: int) -> str:
    function = ctypes.CDLL(None, use_errno=True)[name]
    function.restype = ctypes.c_int
    return outcome(function(*map(ctypes.c_long, arguments)))


def said_by_number(number: int, *arguments: int) -> str:
    return outcome(_syscall(number, *arguments, *[0] * (6 - len(arguments))))


def outcome(result: int) -> str:
    return errno.errorcode[ctypes.get_errno()] if result == -1 else "allowed"


def status_of(pid: int | str = "self") -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def capability_lines() -> str:
    status = status_of()
    return " ".join(f"{name}={int(status['Cap' + name], 16):x}" for name in ("Prm", "Eff", "Bnd", "Inh", "Amb"))


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


@pytest.mark.needs("root")
def test_a_body_run_as_root_has_the_default_capabilities_and_no_more() -> None:
    share = capget().permitted & DEFAULT
    bound = bounding() & DEFAULT
    said = confined(capability_lines, stay_root, keep_permitted=False)
    assert said == f"Prm={share:x} Eff={share:x} Bnd={bound:x} Inh=0 Amb=0"


@pytest.mark.needs("root")
def test_init_keeps_its_capabilities_and_what_it_executes_does_not() -> None:
    has, bound = capget(), bounding() & DEFAULT
    assert confined(capability_lines, stay_root).startswith(
        f"Prm={has.permitted:x} Eff={has.effective:x} Bnd={bound:x} "
    )
    executed = confined(run_program_that_tells, stay_root)
    assert executed == f"Prm={bound:x} Eff={bound:x} Bnd={bound:x}"


def run_program_that_tells() -> str:
    lines = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = dict(line.split(":\t") for line in lines if line.startswith("Cap"))
    return " ".join(f"{name}={int(found['Cap' + name], 16):x}" for name in ("Prm", "Eff", "Bnd"))


@pytest.mark.needs("user-namespaces")
def test_in_a_user_namespace_init_is_all_powerful_and_what_it_executes_has_the_defaults() -> None:
    said = confined(
        lambda: f"{capget().permitted & ~DEFAULT != 0} {run_program_that_tells()}", become_user_with_namespace
    )
    assert said == f"True Prm={DEFAULT:x} Eff={DEFAULT:x} Bnd={DEFAULT:x}"


@pytest.mark.needs("user-namespaces")
def test_a_body_run_as_a_mapped_root_has_the_default_capabilities() -> None:
    said = confined(capability_lines, become_user_with_namespace, keep_permitted=False)
    assert said == f"Prm={DEFAULT:x} Eff={DEFAULT:x} Bnd={DEFAULT:x} Inh=0 Amb=0"


@pytest.mark.needs("user-namespaces")
def test_a_body_run_as_an_ordinary_user_has_no_capabilities() -> None:
    said = confined(capability_lines, lambda: become_user_with_namespace(1000), keep_permitted=False)
    assert said == f"Prm=0 Eff=0 Bnd={DEFAULT:x} Inh=0 Amb=0"


def hand_down_kill() -> None:
    has = capget()
    capset(has.effective, has.permitted, mask([Capability.KILL]))
    prctl(Prctl.CAP_AMBIENT, AMBIENT_RAISE, Capability.KILL)
    assert capability_lines().endswith(" Inh=20 Amb=20")


def test_capabilities_handed_down_are_taken_back(enter: Callable[[], None]) -> None:
    def enter_and_hand_down() -> None:
        enter()
        hand_down_kill()

    assert confined(capability_lines, enter_and_hand_down).endswith(" Inh=0 Amb=0")


def test_the_ambient_set_can_be_emptied_by_itself(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        hand_down_kill()
        clear_ambient()
        return capability_lines()

    assert in_child(attempt).endswith(" Inh=20 Amb=0")


def test_capabilities_are_read_as_proc_tells_them(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        has = capget()
        read = f"Prm={has.permitted:x} Eff={has.effective:x} Bnd={bounding():x} Inh={has.inheritable:x} Amb=0"
        return "the same" if read == capability_lines() else f"{read} is not {capability_lines()}"

    assert in_child(attempt) == "the same"


def test_no_program_gains_privileges_and_the_filter_is_on(enter: Callable[[], None]) -> None:
    said = confined(lambda: f"{status_of()['NoNewPrivs']} {status_of()['Seccomp']}", enter)
    assert said == "1 2"


def test_confining_twice_is_no_error(enter: Callable[[], None]) -> None:
    def again() -> str:
        confine(seccomp_program(), keep_permitted=False)
        return capability_lines()

    assert " Inh=0 Amb=0" in confined(again, enter, keep_permitted=False)


def test_one_that_tells_is_heard_by_one_only(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        plain, telling = seccomp_program(), seccomp_program(tells=True)
        listener = confine(plain, keep_permitted=True, telling=telling)
        again = confine(plain, keep_permitted=True, telling=telling)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        pid = os.fork()
        if pid == 0:
            os._exit(socket.socket().connect_ex(("127.0.0.1", 1)))
        poll.poll()
        call = next_notification(listener)
        let_go_on(listener, call)
        ended, status = os.waitpid(pid, 0)
        said = errno.errorcode[os.waitstatus_to_exitcode(status)]
        return f"{listener >= 0} {again} {call.pid == ended} {call.arguments[2]} {said}"

    assert in_child(attempt) == "True -1 True 16 ECONNREFUSED"


def test_without_a_program_there_is_no_filter_and_the_capabilities_are_cut(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        confine(None, keep_permitted=False)
        return f"{status_of()['Seccomp']} {capget().permitted & ~DEFAULT}"

    before = status_of()["Seccomp"]
    assert in_child(attempt) == f"{before} 0"


def test_a_capability_that_cannot_be_taken_away_is_an_error(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        capset(0, 0, 0)
        with pytest.raises(SyscallError) as caught:
            confine(seccomp_program(), keep_permitted=False)
        return str(caught.value)

    assert in_child(attempt) == "prctl(CAPBSET_DROP, 2): EPERM, Operation not permitted"


def test_a_capability_dropped_from_the_bounding_set_is_gone_from_it(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        before = bounding()
        drop_bounding([Capability.CHOWN, Capability.BPF])
        return f"{before & ~bounding():x}"

    assert in_child(attempt) == f"{mask([Capability.CHOWN, Capability.BPF]):x}"


def test_a_cut_bounding_set_is_handed_to_forks_and_leaves_this_process_its_own(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        before = capget()
        cut_bounding_set()
        return f"{capget() == before} {in_child(lambda: f'{bounding() & ~DEFAULT}')}"

    assert in_child(attempt) == "True 0"


def test_the_policy_is_imported_without_what_would_slow_the_supervisor() -> None:
    script = "import sys, pytest_sandbox_runtime.supervisor.confinement; print(*sys.modules)"
    runtime = str(Path(__file__).parents[2] / "runtime")
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {runtime!r}); {script}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"typing", "dataclasses", "re", "json", "subprocess", "pytest_sandbox_runtime.errors"} & set(loaded)
