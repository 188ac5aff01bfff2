"""Ordinary users, without a group of theirs and in one that is delegated to them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.cgroups import Group, v2
from tests.kernel.cgroups.members import FORK, NAMES, NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.cgroups import Hierarchy

pytestmark = pytest.mark.needs("root")


def in_a_process(code: str) -> str:
    """Run ``code`` in a process that has imported the package, so that it may drop its rights."""
    prelude = """
import os, sys
from pytest_sandbox_runtime.cgroups import *
from pytest_sandbox_runtime.kernel.namespaces import *
"""
    said = subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


def test_an_ordinary_user_is_told_which_group_is_not_writable(hierarchy: Hierarchy) -> None:
    code = f"os.seteuid({NOBODY})\nprint(*(p.reason for p in find()), sep='\\n')\nprint(bool(find()))"
    *reasons, enforced = in_a_process(code).splitlines()
    for place, reason in zip(hierarchy, reasons, strict=True):
        assert reason == f"no delegated cgroup: {place.base} is not writable"
    assert enforced == "False"


@pytest.fixture
def delegated(hierarchy: Hierarchy) -> Iterator[str]:
    """A version 2 group as systemd delegates it: the user's directory and files, the controllers enabled above."""
    directory = f"{hierarchy.pids.base}/test-{os.getpid()}-{next(NAMES)}"
    os.mkdir(directory)
    for name in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
        os.chown(f"{directory}/{name}", NOBODY, NOBODY)
    yield directory
    Group([(v2.NUMBER, directory)]).remove()


ENTER = """
open({directory!r} + "/cgroup.procs", "w").write("0")
os.setgid({user}); os.setuid({user})
"""
LIMITED = """
group = hierarchy.create_run("user").create("1", Limits(64 << 20, 0.5, 3))
if os.fork() == 0:
    group.join()
    os.execv(sys.executable, [sys.executable, "-c", {fork!r}])
os.wait()
group.remove()
"""


@pytest.mark.needs("cgroup-v2")
def test_a_user_in_a_delegated_group_sets_limits_once_the_processes_are_moved(delegated: str) -> None:
    code = ENTER + "hierarchy = find().prepare()\nprint(open('/proc/self/cgroup').read().split('/')[-1], flush=True)\n"
    code = (code + LIMITED).format(directory=delegated, user=NOBODY, fork=FORK)
    assert in_a_process(code).split() == [v2.LEAF, "2", "refused"]


@pytest.mark.needs("cgroup-v2")
def test_the_next_run_of_that_user_works_beside_the_same_leaf(delegated: str) -> None:
    code = ENTER + "find().prepare()\nhierarchy = find().prepare()\nprint(hierarchy.pids.base, flush=True)\n" + LIMITED
    assert in_a_process(code.format(directory=delegated, user=NOBODY, fork=FORK)).split() == [delegated, "2", "refused"]


NEW_PID_NAMESPACE = """
unshare(CloneFlag.NEWUSER | CloneFlag.NEWPID)
sys.stdout.flush()
if (pid := os.fork()):
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
hierarchy = find()
"""


@pytest.mark.needs("cgroup-v2")
def test_a_supervisor_in_its_own_pid_namespace_sets_limits_after_prepare(delegated: str) -> None:
    code = ENTER + "find().prepare()\n" + NEW_PID_NAMESPACE + LIMITED
    assert in_a_process(code.format(directory=delegated, user=NOBODY, fork=FORK)) == "2 refused"


@pytest.mark.needs("cgroup-v2")
def test_without_prepare_it_is_told_what_is_in_the_way(delegated: str) -> None:
    code = ENTER + NEW_PID_NAMESPACE + "print(hierarchy.memory.reason)\n"
    said = in_a_process(code.format(directory=delegated, user=NOBODY))
    assert said.startswith(f"{delegated} has processes of another pid namespace")
