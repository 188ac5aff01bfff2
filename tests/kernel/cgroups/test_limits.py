"""Limits are kept to, and another process reads what is used."""

from __future__ import annotations

import os
import signal

import pytest

from pytest_sandbox_runtime.cgroups import Limits, Run, read_stats
from pytest_sandbox_runtime.cgroups.files import read, read_keyed
from tests.kernel.cgroups.members import ALLOCATE, BURN, ECHO, FORK, MIB, child, echoes, outcome

pytestmark = pytest.mark.needs("root")


@pytest.mark.needs("cgroup-memory")
def test_a_child_that_takes_more_memory_than_the_limit_is_killed_and_counted(run: Run) -> None:
    group = run.create("1", Limits(48 * MIB, None, None))
    assert outcome(group, ALLOCATE, 200 * MIB) == (-signal.SIGKILL, "")
    assert (group.oom_kills() or 0) >= 1
    group.remove()


@pytest.mark.needs("cgroup-memory")
def test_a_child_that_takes_less_is_left_alone_and_its_sigkill_is_not_counted(run: Run) -> None:
    group = run.create("1", Limits(48 * MIB, None, None))
    assert outcome(group, ALLOCATE, 8 * MIB) == (0, str(8 * MIB))
    assert outcome(group, "import os; os.kill(os.getpid(), 9)") == (-signal.SIGKILL, "")
    assert group.oom_kills() == 0


@pytest.mark.needs("cgroup-memory")
def test_swap_does_not_soften_the_limit(run: Run) -> None:
    group = run.create("1", Limits(48 * MIB, None, None))
    ((_, directory),) = group.paths()
    said = {name: read(f"{directory}/{name}").strip() for name in os.listdir(directory) if name in SWAP_LIMITS}
    # Neither is there where the kernel does not account for swap.
    assert said in ({}, {"memory.swap.max": "0"}, {"memory.memsw.limit_in_bytes": str(48 * MIB)})


SWAP_LIMITS = ("memory.swap.max", "memory.memsw.limit_in_bytes")


@pytest.mark.needs("cgroup-pids")
def test_the_fork_beyond_the_limit_is_refused(run: Run) -> None:
    assert outcome(run.create("1", Limits(None, None, 4)), FORK) == (0, "3 refused")


@pytest.mark.needs("cgroup-cpu")
def test_a_child_that_wants_more_processor_than_the_limit_is_throttled(run: Run) -> None:
    group = run.create("1", Limits(None, 0.1, None))
    ((_, directory),) = group.paths()
    assert read_keyed(f"{directory}/cpu.stat")["nr_throttled"] == 0
    assert outcome(group, BURN)[0] == 0
    assert read_keyed(f"{directory}/cpu.stat")["nr_throttled"] > 0


@pytest.mark.needs("cgroup-memory", "cgroup-pids", "cgroup-cpu")
def test_another_process_reads_what_a_group_uses(run: Run) -> None:
    group = run.create("1", Limits(48 * MIB, 2, 10), ("cpuacct",))
    with child(group, ECHO) as process:
        assert echoes(process, None)
        stats = read_stats(group.paths())
    assert (stats.memory_limit, stats.pids, stats.oom_kills) == (48 * MIB, 1, 0)
    assert 0 < stats.memory <= 48 * MIB
    assert stats.memory_peak is None or stats.memory_peak >= stats.memory
    assert stats.cpu_seconds > 0
