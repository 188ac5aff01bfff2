"""Groups are made where they are needed, and gone when their run is, though their processes are dying, frozen or alive."""

from __future__ import annotations

import glob
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.cgroups import Group, Limits, Run, remains
from tests.kernel.cgroups.members import ECHO, MIB, NAMES, child, echoes, outcome

if TYPE_CHECKING:
    from pytest_sandbox_runtime.cgroups import Hierarchy

pytestmark = pytest.mark.needs("root")

NO_LIMITS = Limits(None, None, None)


@pytest.mark.needs("cgroup-pids")
def test_a_limit_makes_its_own_controllers_group_only(run: Run, hierarchy: Hierarchy) -> None:
    group = run.create("1", Limits(None, None, 10))
    ((version, directory),) = group.paths()
    assert version == hierarchy.pids.version
    assert os.path.dirname(os.path.dirname(directory)) == hierarchy.pids.base
    assert not os.path.exists(f"{directory}/memory.max")
    assert not os.path.exists(f"{directory}/cpu.max")


@pytest.mark.needs("cgroup-pids", "cgroup-cpu")
def test_controllers_are_added_when_a_later_group_needs_them(run: Run) -> None:
    run.create("1", Limits(None, None, 10))
    second = run.create("2", Limits(None, 0.5, 10))
    assert all(os.path.isdir(directory) for _, directory in second.paths())


def below(hierarchy: Hierarchy, pattern: str) -> list[str]:
    runs = f"pytest-sandbox-test-{os.getpid()}-*"
    return [path for base in {place.base for place in hierarchy} for path in glob.glob(f"{base}/{runs}/{pattern}")]


@pytest.mark.needs("cgroup-memory", "cgroup-pids")
def test_a_group_that_fails_half_way_leaves_nothing(run: Run, hierarchy: Hierarchy) -> None:
    with pytest.raises(OSError, match=r"pids\.max.*EINVAL"):
        run.create("1", Limits(48 * MIB, None, -5))
    assert below(hierarchy, "1") == []
    run.remove()
    assert below(hierarchy, "") == []


@pytest.mark.needs("cgroup-pids")
def test_a_name_is_taken_once_and_its_first_group_stays(run: Run) -> None:
    first = run.create("1", Limits(None, None, 10))
    with pytest.raises(FileExistsError):
        run.create("1", Limits(None, None, 10))
    assert os.path.isdir(first.paths()[0][1])


@pytest.mark.needs("cgroup-memory", "cgroup-pids")
def test_remove_waits_for_processes_that_are_dying(run: Run) -> None:
    for number in range(20):
        group = run.create(str(number), Limits(48 * MIB, None, 10))
        with child(group, ECHO) as process:
            assert echoes(process, None)
            process.kill()
            group.remove()
            assert not any(os.path.exists(directory) for _, directory in group.paths())
        group.remove()


@pytest.mark.needs("cgroup-pids")
def test_a_group_with_a_living_process_is_not_removed_and_says_which(run: Run) -> None:
    group = run.create("1", Limits(None, None, 10))
    with child(group, ECHO) as process:
        assert echoes(process, None)
        with pytest.raises(OSError, match=f"rmdir.*{group.paths()[0][1]}.*EBUSY"):
            group.remove(timeout=0.02)
        assert echoes(process, None)


@pytest.mark.needs("cgroup-pids")
def test_a_run_removes_what_its_groups_left_and_can_go_on(run: Run, hierarchy: Hierarchy) -> None:
    run.create("1", Limits(None, None, 10))
    directory = os.path.dirname(run.create("2", Limits(None, None, 10)).paths()[0][1])
    run.remove()
    assert not os.path.exists(directory)
    assert run.create("3", Limits(None, None, 10)).paths()[0][1] == f"{directory}/3"
    assert directory.startswith(hierarchy.pids.base)


@pytest.mark.needs("cgroup-pids")
def test_a_run_whose_empty_directory_was_taken_makes_it_again(run: Run) -> None:
    first = run.create("1", Limits(None, None, 10))
    first.remove()
    os.rmdir(os.path.dirname(first.paths()[0][1]))
    second = run.create("2", Limits(None, None, 10))
    assert outcome(second, "print(1)") == (0, "1")


@pytest.mark.needs("cgroup-freezer")
def test_a_frozen_group_does_nothing_until_it_is_thawed(run: Run) -> None:
    group = run.create("1", NO_LIMITS, ("freezer",))
    with child(group, ECHO) as process:
        assert echoes(process, None)
        assert group.freeze()
        assert not echoes(process, 200)
        assert group.thaw()
        assert echoes(process, None)


@pytest.mark.needs("cgroup-pids")
def test_remains_of_dead_runs_are_removed_and_the_living_keep_theirs(hierarchy: Hierarchy) -> None:
    names = [f"test-{os.getpid()}-{next(NAMES)}" for _ in range(2)]
    dead, living = [hierarchy.create_run(name) for name in names]
    lost, kept = [one.create("1", Limits(None, None, 10), ("freezer",)) for one in (dead, living)]
    try:
        assert remains(hierarchy, lambda name: name != names[0]) == [names[0]]
        assert not any(os.path.exists(os.path.dirname(directory)) for _, directory in lost.paths())
        assert all(os.path.exists(directory) for _, directory in kept.paths())
    finally:
        living.remove()
        dead.remove()


def thaw_what_is_left(group: Group) -> None:
    # Else a test that fails would wait for ever for a process that cannot die.
    with suppress(FileNotFoundError):
        group.thaw()
    group.remove()


@pytest.mark.needs("cgroup-pids")
def test_a_frozen_process_that_was_killed_dies_when_its_remains_are_removed(hierarchy: Hierarchy) -> None:
    name = f"test-{os.getpid()}-{next(NAMES)}"
    group = hierarchy.create_run(name).create("1", Limits(None, None, 10), ("freezer",))
    with child(group, ECHO) as process:
        assert echoes(process, None)
        group.freeze()
        process.kill()
        try:
            assert remains(hierarchy, lambda other: other != name) == [name]
        finally:
            thaw_what_is_left(group)


@pytest.mark.needs("cgroup-pids")
def test_remains_with_a_living_process_stay_and_are_not_told_as_removed(hierarchy: Hierarchy) -> None:
    name = f"test-{os.getpid()}-{next(NAMES)}"
    run = hierarchy.create_run(name)
    with child(run.create("1", Limits(None, None, 10)), ECHO) as process:
        assert remains(hierarchy, lambda other: other != name, timeout=0.02) == []
        assert echoes(process, None)
    run.remove()
