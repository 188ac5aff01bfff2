"""PYTEST_DONT_REWRITE. Version 1 of cgroups(7): one hierarchy for each controller, or for a few together."""

from __future__ import annotations

import errno
import os
import time

from pytest_sandbox_runtime.cgroups.convert import Setting, Stats, cfs_quota
from pytest_sandbox_runtime.cgroups.files import (
    await_deaths,
    breathe,
    read,
    read_keyed,
    read_number,
    writable,
)
from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.pseudo_files import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NANOSECONDS = 1_000_000_000


def obstacle(directory: str, top: str, controller: str) -> str:  # noqa: ARG001  v2 has more to ask
    """Return why no child group can be made in ``directory``, or nothing."""
    return "" if writable(directory) else f"no delegated cgroup: {directory} is not writable"


def prepare(top: str, base: str, run: str, controllers: Iterable[str]) -> None:  # noqa: ARG001  as obstacle
    """Make the directory ``run``, in which groups are made, if it is not there."""
    try:
        os.mkdir(run, 0o755)
    except FileExistsError:
        return
    furnish(run)


def furnish(directory: str) -> None:
    """Fill in what a new group lacks to be joined."""
    if os.path.exists(f"{directory}/cpuset.cpus"):
        _fill_cpuset(directory)


def _fill_cpuset(directory: str) -> None:
    # Where cpuset shares the hierarchy, a new group has no processors, and joining it is ENOSPC (cpuset(7)).
    for name in ("cpuset.cpus", "cpuset.mems"):
        write(f"{directory}/{name}", read(f"{os.path.dirname(directory)}/{name}").strip())


def settings(limit: str, amount: float) -> tuple[Setting, ...]:
    """Return what is to be written for one limit, in order."""
    if limit == "memory":
        # Memory and swap together may be no less than memory alone, so it comes second.
        return (
            Setting("memory.limit_in_bytes", str(amount), required=True),
            Setting("memory.memsw.limit_in_bytes", str(amount), required=False),
        )
    if limit == "cpus":
        quota, period = cfs_quota(amount)
        return (
            Setting("cpu.cfs_period_us", str(period), required=True),
            Setting("cpu.cfs_quota_us", str(quota), required=True),
        )
    return (Setting("pids.max", str(amount), required=True),)


def read_stats(directory: str) -> Stats:
    """Return what the controllers of this one directory know."""
    used = read_number(f"{directory}/cpuacct.usage")
    return Stats(
        memory=read_number(f"{directory}/memory.usage_in_bytes"),
        memory_peak=read_number(f"{directory}/memory.max_usage_in_bytes"),
        memory_limit=read_number(f"{directory}/memory.limit_in_bytes"),
        cpu_seconds=None if used is None else used / _NANOSECONDS,
        pids=read_number(f"{directory}/pids.current"),
        oom_kills=read_keyed(f"{directory}/memory.oom_control").get("oom_kill"),
    )


def freeze(directory: str, deadline: float) -> None:
    """Freeze every process; not even SIGKILL ends one then."""
    # A fork under way may leave the group FREEZING; reading looks again, and there is no event.
    write(f"{directory}/freezer.state", "FROZEN")
    while read(f"{directory}/freezer.state").strip() != "FROZEN":
        if time.monotonic() >= deadline:
            write(f"{directory}/freezer.state", "THAWED")
            raise SyscallError("write", errno.ETIMEDOUT, f"{directory}/freezer.state")
        breathe()


def thaw(directory: str) -> None:
    """Let the processes go on."""
    write(f"{directory}/freezer.state", "THAWED")


def can_freeze(directory: str) -> bool:
    """Return whether this directory has the freezer."""
    return os.path.exists(f"{directory}/freezer.state")


def kill(directory: str) -> bool:  # noqa: ARG001  as in v2
    """Return False: version 1 kills no group at once."""
    return False


def await_empty(directory: str, deadline: float) -> None:
    """Wait until the processes have died, or ``deadline`` has passed."""
    await_deaths(directory, deadline)
