from __future__ import annotations

import errno
import glob
import itertools
import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.cgroups import Group, Limits, Run, find, read_stats, remains, v2
from pytest_sandbox_runtime.cgroups.convert import locate, parse_memberships, parse_mountinfo
from pytest_sandbox_runtime.cgroups.files import read, read_keyed
from pytest_sandbox_runtime.kernel.pseudo_files import write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.cgroups import Hierarchy

pytestmark = pytest.mark.needs("root")

MIB = 1 << 20
NO_LIMITS = Limits(None, None, None)
NAMES = itertools.count()
NOBODY = 65534
ALLOCATE = "import sys; sys.stdout.write(str(len(bytearray(int(sys.argv[1])))))"
FORK = """
import os
release, hold = os.pipe()
made = 0
try:
    while made < 50:
        if os.fork() == 0:
            os.close(hold)
            os.read(release, 1)
            os._exit(0)
        made += 1
except BlockingIOError:
    print(made, "refused")
else:
    print(made, "made")
os.close(hold)
"""
# More than the 0.2 that is asked of the group, as the two are counted by different clocks.
BURN = "import time\nwhile time.process_time() < 0.25: pass"
ECHO = "import os\nwhile os.write(1, os.read(0, 1)): pass"


@pytest.fixture(scope="module")
def hierarchy() -> Hierarchy:
    return find().prepare()


@pytest.fixture
def run(hierarchy: Hierarchy) -> Iterator[Run]:
    run = hierarchy.create_run(f"test-{os.getpid()}-{next(NAMES)}")
    yield run
    run.remove()


@pytest.fixture
def unified() -> Iterator[Group]:
    """A group of version 2 below this process's own, whatever controllers that has."""
    mounts = [mounted for mounted in parse_mountinfo(read("/proc/self/mountinfo")) if mounted.version == v2.NUMBER]
    path = parse_memberships(read("/proc/self/cgroup")).get("", "/")
    own = locate(mounts[0], path)
    assert own is not None
    group = Group()
    group.add(v2.NUMBER, f"{v2.base_of(own)}/test-{os.getpid()}-{next(NAMES)}")
    yield group
    group.remove()


@contextmanager
def child(group: Group, code: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=group.join,  # noqa: PLW1509  there is one thread
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def outcome(group: Group, code: str, *arguments: object) -> tuple[int, str]:
    with child(group, code, *arguments) as process:
        printed, _ = process.communicate()
    return process.returncode, printed.decode().strip()


def echoes(process: subprocess.Popen[bytes], milliseconds: int | None) -> bool:
    """Send a byte, if none is under way, and tell whether it comes back in time."""
    assert process.stdin is not None
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    if not poll.poll(0):
        os.write(process.stdin.fileno(), b".")
    return bool(poll.poll(milliseconds)) and os.read(process.stdout.fileno(), 1) == b"."


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


@pytest.mark.needs("cgroup-tree")
def test_a_write_that_the_kernel_refuses_names_call_and_file(unified: Group) -> None:
    path = f"{unified.paths()[0][1]}/cgroup.subtree_control"
    with pytest.raises(OSError, match=r"^write\(.*cgroup\.subtree_control\)") as refused:
        write(path, "+nonsense")
    assert (refused.value.errno, refused.value.filename) == (errno.EINVAL, path)
