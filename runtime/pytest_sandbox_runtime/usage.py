"""What a sandbox without control groups uses, summed over the processes that its /proc shows: proc_pid_stat(5).

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os

from pytest_sandbox_runtime.cgroups import Stats

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def sum_processes(root: int) -> Stats:
    """Return what the processes in the sandbox with root directory ``root`` use now: memory is resident."""
    proc = os.open("proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        used = [_process(proc, name) for name in os.listdir(proc) if name.isdigit()]
    finally:
        os.close(proc)
    alive = [one for one in used if one is not None]
    # PID 1 has inherited the time of every child that has ended: getrusage(2).
    return Stats(sum(one[1] for one in alive), None, None, sum(one[0] for one in alive), len(alive), None)


def _process(proc: int, pid: str) -> tuple[float, int] | None:
    try:
        fd = os.open(f"{pid}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except FileNotFoundError:
        return None
    try:
        text = os.read(fd, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    # The name, in parentheses, may hold anything.
    fields = text.rpartition(b")")[2].split()
    user, system, children_user, children_system = (int(field) for field in fields[11:15])
    return (user + system + children_user + children_system) / _TICKS, int(fields[21]) * _PAGE
