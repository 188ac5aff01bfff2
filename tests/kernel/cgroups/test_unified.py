"""What version 2 does by itself, whatever its controllers."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from pytest_sandbox_runtime.cgroups import Group, read_stats, v2
from pytest_sandbox_runtime.kernel.pseudo_files import write
from tests.kernel.cgroups.members import BURN, ECHO, child, echoes, outcome

pytestmark = pytest.mark.needs("root")


@pytest.mark.needs("cgroup-tree")
def test_version_2_kills_a_whole_group(unified: Group) -> None:
    with child(unified, ECHO) as first, child(unified, ECHO) as second:
        assert echoes(first, None)
        assert echoes(second, None)
        # From Linux 5.14 on.
        assert unified.kill() == os.path.exists(f"{unified.paths()[0][1]}/cgroup.kill")
        if unified.kill():
            assert first.wait(60) == second.wait(60) == -signal.SIGKILL


@pytest.mark.needs("cgroup-tree")
def test_version_2_freezes_and_thaws(unified: Group) -> None:
    with child(unified, ECHO) as process:
        assert echoes(process, None)
        assert unified.freeze()
        assert not echoes(process, 200)
        assert unified.thaw()
        assert echoes(process, None)


@pytest.mark.needs("cgroup-tree")
def test_version_2_removes_groups_that_were_made_inside_and_waits_for_the_dying(unified: Group) -> None:
    inner = f"{unified.paths()[0][1]}/inner"
    os.makedirs(f"{inner}/most")
    with child(Group([(v2.NUMBER, f"{inner}/most")]), ECHO) as process:
        assert echoes(process, None)
        process.kill()
        unified.remove()
    assert not os.path.exists(unified.paths()[0][1])


@pytest.mark.needs("cgroup-tree")
def test_version_2_counts_processor_time_without_a_controller(unified: Group) -> None:
    assert outcome(unified, BURN)[0] == 0
    assert read_stats(unified.paths()).cpu_seconds >= 0.2


@pytest.mark.needs("cgroup-tree")
def test_a_write_that_the_kernel_refuses_names_call_and_file(unified: Group) -> None:
    path = f"{unified.paths()[0][1]}/cgroup.subtree_control"
    with pytest.raises(OSError, match=r"^write\(.*cgroup\.subtree_control\)") as refused:
        write(path, "+nonsense")
    assert (refused.value.errno, refused.value.filename) == (errno.EINVAL, path)
