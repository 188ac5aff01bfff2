"""PYTEST_DONT_REWRITE. Version 2 of cgroups(7): one hierarchy, controllers handed down from group to group."""

from __future__ import annotations

import errno
import os
import time

from pytest_sandbox_runtime.cgroups.convert import Setting, Stats, cfs_quota, lineage
from pytest_sandbox_runtime.cgroups.files import (
    await_event,
    read_keyed,
    read_number,
    read_words,
    writable,
)
from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.pseudo_files import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NUMBER = 2
# Where the processes of a delegated group go, so that the group can have controllers. It stays: who started pytest
# (a shell, a container's PID 1) is in it too, and the next run is then found in it.
LEAF = "pytest-sandbox.processes"

# What every group has without a controller.
BUILT_IN = ("freezer", "cpuacct")
_MICROSECONDS = 1_000_000
# Processes that are forked while the others are moved are found by looking again.
_ROUNDS = 100


def base_of(own: str) -> str:
    """Return the group to work in, for a process that is in ``own``."""
    return os.path.dirname(own) if os.path.basename(own) == LEAF else own


def obstacle(directory: str, top: str, controller: str) -> str:
    """Return why no child group with ``controller`` can be made in ``directory``, or nothing."""
    if not writable(directory):
        return f"no delegated cgroup: {directory} is not writable"
    if controller == "freezer" and not os.path.exists(f"{directory}/cgroup.freeze") and not _is_root(directory):
        return "this kernel has no cgroup.freeze (Linux 5.2)"
    if controller in BUILT_IN or controller in read_words(f"{directory}/cgroup.subtree_control"):
        return ""
    for group in reversed(lineage(top, directory)):
        for name in ("cgroup.procs", "cgroup.subtree_control"):
            if not writable(f"{group}/{name}"):
                return _not_given(controller, directory, f"{group}/{name} is not writable")
        if controller in read_words(f"{group}/cgroup.controllers"):
            return _stuck(directory)
    return _not_given(controller, directory, f"{top}/cgroup.controllers has none")


def _not_given(controller: str, directory: str, reason: str) -> str:
    return f"no delegated cgroup: {directory} has no {controller} controller to give to a child group ({reason})"


def _stuck(directory: str) -> str:
    if _is_root(directory) or "0" not in read_words(f"{directory}/cgroup.procs"):
        return ""
    return f"{directory} has processes of another pid namespace, which cannot be moved to make room for child groups"


def _is_root(directory: str) -> bool:
    # Of all groups only the hierarchy's real root has no type, and only it may have processes and controllers both.
    return not os.path.exists(f"{directory}/cgroup.type")


def prepare(top: str, base: str, run: str, controllers: Iterable[str]) -> None:
    """Make the directory ``run``, if it is not there, and let its child groups have ``controllers``."""
    wanted = [controller for controller in controllers if controller not in BUILT_IN]
    hand_down(top, base, wanted)
    _ensure(run)
    _enable(run, wanted)


def hand_down(top: str, base: str, controllers: Iterable[str]) -> None:
    """Let the child groups of ``base`` have ``controllers``.

    A group other than the root may not have both processes and controllers for its children ("no internal
    processes"), so those of ``base``, which are this process and who started it, move to a leaf first. They can be
    named only in their own pid namespace: call this before entering another.
    """
    for group in lineage(top, base):
        missing = _missing(group, controllers)
        # systemd leaves a controller that nobody asked for out of the upper groups; root may pass it on.
        if missing and (group == base or _missing_in_child(base, group, missing)):
            if group == base and not _is_root(base):
                _move_processes(base)
            _enable(group, missing)


def _missing(group: str, controllers: Iterable[str]) -> list[str]:
    enabled = read_words(f"{group}/cgroup.subtree_control")
    return [controller for controller in controllers if controller not in enabled]


def _missing_in_child(base: str, group: str, missing: list[str]) -> bool:
    child = lineage(group, base)[1]
    return not set(missing) <= set(read_words(f"{child}/cgroup.controllers"))


def _enable(group: str, controllers: list[str]) -> None:
    missing = _missing(group, controllers)
    if missing:
        write(f"{group}/cgroup.subtree_control", " ".join(f"+{controller}" for controller in missing))


def _move_processes(base: str) -> None:
    leaf = f"{base}/{LEAF}"
    _ensure(leaf)
    for _ in range(_ROUNDS):
        pids = read_words(f"{base}/cgroup.procs")
        if not pids:
            return
        for pid in pids:
            _move(pid, base, leaf)
    raise SyscallError("write", errno.EBUSY, f"{base}/cgroup.subtree_control")


def _move(pid: str, base: str, leaf: str) -> None:
    if pid == "0":
        # 0 would mean this process itself.
        raise SyscallError("write", errno.ESRCH, f"{base}/cgroup.procs")
    try:
        write(f"{leaf}/cgroup.procs", pid)
    except SyscallError as error:
        if error.errno != errno.ESRCH:
            raise


def _ensure(directory: str) -> None:
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return


def furnish(directory: str) -> None:
    """Do nothing: a group that was made can be joined."""


def settings(limit: str, amount: float) -> tuple[Setting, ...]:
    """Return what is to be written for one limit, in order."""
    if limit == "memory":
        return (
            Setting("memory.max", str(amount), required=True),
            Setting("memory.swap.max", "0", required=False),
        )
    if limit == "cpus":
        quota, period = cfs_quota(amount)
        return (Setting("cpu.max", f"{quota} {period}", required=True),)
    return (Setting("pids.max", str(amount), required=True),)


def read_stats(directory: str) -> Stats:
    """Return what the group knows."""
    used = read_keyed(f"{directory}/cpu.stat").get("usage_usec")
    return Stats(
        memory=read_number(f"{directory}/memory.current"),
        memory_peak=read_number(f"{directory}/memory.peak"),
        memory_limit=read_number(f"{directory}/memory.max"),
        cpu_seconds=None if used is None else used / _MICROSECONDS,
        pids=read_number(f"{directory}/pids.current"),
        oom_kills=read_keyed(f"{directory}/memory.events").get("oom_kill"),
    )


def freeze(directory: str, deadline: float) -> None:
    """Freeze every process; a signal that kills is still obeyed."""
    write(f"{directory}/cgroup.freeze", "1")
    if not await_event(directory, "frozen", 1, deadline):
        thaw(directory)
        raise SyscallError("write", errno.ETIMEDOUT, f"{directory}/cgroup.freeze")


def thaw(directory: str) -> None:
    """Let the processes go on."""
    write(f"{directory}/cgroup.freeze", "0")


def can_freeze(directory: str) -> bool:
    """Return whether this kernel freezes (Linux 5.2)."""
    return os.path.exists(f"{directory}/cgroup.freeze")


def kill(directory: str) -> bool:
    """Kill every process of the group and below, forks under way included; False before Linux 5.14."""
    try:
        write(f"{directory}/cgroup.kill", "1")
    except FileNotFoundError:
        return False
    return True


def await_empty(directory: str, deadline: float) -> None:
    """Wait until no process is left in the group and below, or ``deadline`` has passed."""
    if time.monotonic() < deadline:
        await_event(directory, "populated", 0, deadline)
