"""PYTEST_DONT_REWRITE. What a sandbox's processes may not do: capabilities, system calls, paths; as Docker has it.

The filter refuses what the default profile of Docker refuses a container that has the default capabilities. There it
is a list of what is allowed; here the few that are denied, and everything that this table does not know is ENOSYS.
"""

from __future__ import annotations

import errno
import os

from pytest_sandbox_runtime.kernel.capabilities import (
    Capability,
    bounding,
    capget,
    capset,
    drop_bounding,
    mask,
)
from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl
from pytest_sandbox_runtime.kernel.seccomp import INSTRUCTION, install

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    # Code, operand, where to go when it holds and when not: an index, or the name of an action.
    Instruction = tuple[int, int, int | str, int | str]
    Range = tuple[int, str]

DEFAULT_CAPABILITIES = frozenset(
    {
        Capability.AUDIT_WRITE,
        Capability.CHOWN,
        Capability.DAC_OVERRIDE,
        Capability.FOWNER,
        Capability.FSETID,
        Capability.KILL,
        Capability.MKNOD,
        Capability.NET_BIND_SERVICE,
        Capability.NET_RAW,
        Capability.SETFCAP,
        Capability.SETGID,
        Capability.SETPCAP,
        Capability.SETUID,
        Capability.SYS_CHROOT,
    }
)

# Not all are on every kernel.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 of <linux/audit.h>.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_MACHINES = tuple(_ARCHITECTURES)
# removexattrat, of Linux 6.13. What came later is to look as on a kernel that lacks it, so that programs fall back.
_NEWEST = 466
# Numbers that no call had in Linux 6.13: the first of each run, and the first behind it.
_UNASSIGNED = {"x86_64": ((336, 424),), "aarch64": ((244, 260), (295, 424))}
_X32 = 0x40000000
_BEYOND_X32 = 0x80000000

_CLONE_NAMESPACES = int(
    CloneFlag.NEWNS
    | CloneFlag.NEWCGROUP
    | CloneFlag.NEWUTS
    | CloneFlag.NEWIPC
    | CloneFlag.NEWUSER
    | CloneFlag.NEWPID
    | CloneFlag.NEWNET
)
_AF_ALG = 38
_AF_VSOCK = 40
# PER_LINUX and PER_LINUX32, each with UNAME26 or without, and the question which one it is.
_PERSONALITIES = (0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)

# Numbers on x86_64 and on aarch64.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "personality": (135, 92),
    "socket": (41, 198),
    # namespaces
    "setns": (308, 268),
    "unshare": (272, 97),
    # mounts
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "pivot_root": (155, 41),
    "umount2": (166, 39),
    # the kernel itself
    "bpf": (321, 280),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "lookup_dcookie": (212, 18),
    "lsm_get_self_attr": (459, 459),
    "lsm_list_modules": (461, 461),
    "lsm_set_self_attr": (460, 460),
    "perf_event_open": (298, 241),
    "syslog": (103, 116),
    "userfaultfd": (323, 282),
    # keys
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "request_key": (249, 218),
    # the machine
    "acct": (163, 89),
    "clock_settime": (227, 112),
    "ioperm": (173, None),
    "iopl": (172, None),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "vhangup": (153, 58),
    # memory policy, and other processes' memory and descriptors
    "get_mempolicy": (239, 236),
    "kcmp": (312, 272),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    # gone from Linux, or never in it
    "_sysctl": (156, None),
    "afs_syscall": (183, None),
    "create_module": (174, None),
    "get_kernel_syms": (177, None),
    "getpmsg": (181, None),
    "nfsservctl": (180, 42),
    "putpmsg": (182, None),
    "query_module": (178, None),
    "security": (185, None),
    "sysfs": (139, None),
    "tuxcall": (184, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "vserver": (236, None),
}
# glibc falls back from clone3 to clone on ENOSYS only; its flags are behind a pointer, where no filter can look.
_OTHERWISE = {"clone": "clone", "clone3": "ENOSYS", "personality": "personality", "socket": "socket"}
# What a sandbox is made with: most of what Docker grants with CAP_SYS_ADMIN, but here it takes a user namespace.
_NESTING = {
    **dict.fromkeys(("clone", "unshare"), "nest"),
    **dict.fromkeys(("setns", "mount", "umount2", "pivot_root", "sethostname", "setdomainname"), "allow"),
    **dict.fromkeys(("fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "move_mount", "mount_setattr"), "allow"),
}
# Heard of by who watches, but where the address has the size of struct sockaddr_un: most of those on the machine.
_CONNECT = {"x86_64": 42, "aarch64": 203}
_UNIX_ADDRESS = 110

# Instructions of <linux/bpf_common.h>, offsets in struct seccomp_data, answers of seccomp(2).
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _THIRD_ARGUMENT = 0, 4, 16, 32
_KILL_PROCESS, _ERRNO, _USER_NOTIF, _ALLOW = 0x80000000, 0x00050000, 0x7FC00000, 0x7FFF0000

_ANSWERS = {
    "allow": _ALLOW,
    "EPERM": _ERRNO | errno.EPERM,
    "ENOSYS": _ERRNO | errno.ENOSYS,
    "kill": _KILL_PROCESS,
    "tell": _USER_NOTIF,
}
# On the low word of an argument: the kernel reads no more of these. Which, the test, what it is tested with, the
# answer when one of those holds, the answer when none does.
_CHECKS = {
    "clone": (_FIRST_ARGUMENT, _JUMP_ANY_BIT, (_CLONE_NAMESPACES,), "EPERM", "allow"),
    # In a namespace of control groups of its own root could mount those of the machine, and write to them.
    "nest": (_FIRST_ARGUMENT, _JUMP_ANY_BIT, (int(CloneFlag.NEWCGROUP),), "EPERM", "allow"),
    "connect": (_THIRD_ARGUMENT, _JUMP_EQUAL, (_UNIX_ADDRESS,), "allow", "tell"),
    "personality": (_FIRST_ARGUMENT, _JUMP_EQUAL, _PERSONALITIES, "allow", "EPERM"),
    "socket": (_FIRST_ARGUMENT, _JUMP_EQUAL, (_AF_ALG, _AF_VSOCK), "EPERM", "allow"),
}


def seccomp_program(machine: str = os.uname().machine, *, tells: bool = False, nests: bool = False) -> bytes:
    """Return the filter for ``machine`` as classic BPF; UnsupportedError where its numbers are not known.

    Code of another architecture (32-bit programs) is killed by SIGSYS at its first system call. One that ``tells`` lets
    connect(2) wait for who listens: see ``confine``. One that ``nests`` lets sandboxes be made, in user namespaces.
    """
    if machine not in _ARCHITECTURES:
        _refuse(machine)
    program: list[Instruction] = [
        (_LOAD, _ARCHITECTURE, 1, 1),
        (_JUMP_EQUAL, _ARCHITECTURES[machine], 2, "kill"),
        (_LOAD, _NUMBER, 3, 3),
    ]
    _search(_ranges(machine, tells=tells, nests=nests), program)
    return _assemble(program, _append_answers(program))


def _refuse(machine: str) -> NoReturn:
    # The supervisor never gets here, and errors would bring it subprocess.
    from pytest_sandbox_runtime.errors import UnsupportedError

    msg = f"there is no system call filter for the machine {machine!r}"
    raise UnsupportedError(msg, hint=f"there is one for {' and '.join(_MACHINES)}")


def _ranges(machine: str, *, tells: bool, nests: bool) -> list[Range]:
    # Where each run of numbers with the same answer begins, so that a search finds a number in some seven steps.
    answers = _answers(machine, _OTHERWISE | _NESTING if nests else _OTHERWISE)
    if tells:
        answers[_CONNECT[machine]] = "connect"
    starts = {0: "allow", _NEWEST + 1: "ENOSYS"}
    for number in sorted(answers):
        starts[number] = answers[number]
        starts.setdefault(number + 1, "allow")
    for first, end in _UNASSIGNED[machine]:
        starts[first] = "ENOSYS"
        starts.setdefault(end, "allow")
    if machine == "x86_64":
        starts |= {_X32: "EPERM", _BEYOND_X32: "ENOSYS"}
    return list(_without_repeats(sorted(starts.items())))


def _answers(machine: str, otherwise: dict[str, str]) -> dict[int, str]:
    column = _MACHINES.index(machine)
    numbers = ((name, numbers[column]) for name, numbers in _DENIED.items())
    return {number: otherwise.get(name, "EPERM") for name, number in numbers if number is not None}


def _without_repeats(ranges: list[Range]) -> Iterator[Range]:
    before = None
    for first, answer in ranges:
        if answer != before:
            yield first, answer
        before = answer


def _search(ranges: list[Range], program: list[Instruction]) -> int | str:
    # Appends a binary search for the loaded number and returns where it begins, or the answer if there is but one.
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    here = len(program)
    program.append((_JUMP_AT_LEAST, ranges[middle][0], 0, 0))
    below = _search(ranges[:middle], program)
    above = _search(ranges[middle:], program)
    program[here] = (_JUMP_AT_LEAST, ranges[middle][0], above, below)
    return here


def _append_answers(program: list[Instruction]) -> dict[str, int]:
    places = {}
    for name, (argument, test, operands, yes, no) in _CHECKS.items():
        places[name] = len(program)
        program.append((_LOAD, argument, len(program) + 1, len(program) + 1))
        for operand in operands[:-1]:
            program.append((test, operand, yes, len(program) + 1))
        program.append((test, operands[-1], yes, no))
    for name, answer in _ANSWERS.items():
        places[name] = len(program)
        program.append((_RETURN, answer, len(program) + 1, len(program) + 1))
    return places


def _assemble(program: list[Instruction], places: dict[str, int]) -> bytes:
    # Jumps are forward, and count from the next instruction: one byte each.
    packed = bytearray()
    for here, (code, operand, *targets) in enumerate(program):
        yes, no = (places[target] if isinstance(target, str) else target for target in targets)
        packed += INSTRUCTION.pack(code, yes - here - 1, no - here - 1, operand)
    return bytes(packed)


def confine(
    program: bytes | None,
    *,
    keep_permitted: bool,
    bounding_is_cut: bool = False,
    inheritable: int = 0,
    telling: bytes | None = None,
) -> int:
    """Confine this thread and all that it will start, for good; ``program`` is what seccomp_program returned.

    What is executed afterwards has at most the default capabilities, and as root those of the mask ``inheritable``,
    which is inherited now. ``keep_permitted=False`` is for a process that
    executes nothing: it has no more than those itself, and none with a user id other than 0 in its user namespace.
    With a program that is ``telling``, which stands for ``program`` where it can, returns a descriptor at which it is
    heard, and which should be given to who listens before this thread connects to anything; else -1.
    Raises SyscallError, also where a capability cannot be taken away: CAP_SETPCAP is needed for that.
    """
    # The bounding set first, as that needs a capability; the filter last, as it needs no_new_privs.
    if not bounding_is_cut:
        cut_bounding_set()
    _cut_sets(keep_permitted=keep_permitted, inheritable=inheritable)
    prctl(Prctl.SET_NO_NEW_PRIVS, 1)
    if telling is not None:
        try:
            return install(telling, listen=True)
        except SyscallError as error:
            # A sandbox in a sandbox: it is heard of outside, and the kernel lets nobody listen twice.
            if error.errno != errno.EBUSY:
                raise
    if program is not None:
        install(program)
    return -1


def cut_bounding_set() -> None:
    """Let what is executed from now on have at most the default capabilities; this thread keeps its own.

    Each capability is a call that copies the process's credentials. Done once before many forks, it is done for all
    of them but those that make a user namespace, which begins with a full set.
    """
    # What is not there needs no dropping, and so no CAP_SETPCAP.
    there = bounding()
    drop_bounding(bit for bit in range(there.bit_length()) if there >> bit & 1 and bit not in DEFAULT_CAPABILITIES)


def _cut_sets(*, keep_permitted: bool, inheritable: int) -> None:
    has = capget()
    kept = has.permitted if keep_permitted else has.permitted & _own_share()
    # What is not inheritable is not ambient either: the kernel sees to that.
    capset(has.effective & kept, kept, inheritable)


def _own_share() -> int:
    return mask(DEFAULT_CAPABILITIES) if os.geteuid() == 0 else 0
