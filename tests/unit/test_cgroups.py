from __future__ import annotations

import marshal
import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.cgroups import Group, Limits, Stats, convert, find, read_stats, v1, v2

if TYPE_CHECKING:
    from pathlib import Path

V1_MOUNTS = """\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/7 /sys/fs/cgroup/my\\040memory ro,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
V1_MEMBERSHIPS = "9:name=systemd:/user:odd\n4:memory:/docker/7/x\n1:cpu,cpuacct:/\n0::/unified\n"


@pytest.mark.parametrize(
    ("cpus", "quota"),
    [
        (1, (100_000, 100_000)),
        (0.5, (50_000, 100_000)),
        (2.25, (225_000, 100_000)),
        (0.01, (1_000, 100_000)),
        (0.005, (5_000, 1_000_000)),
        (0.0001, (1_000, 1_000_000)),
    ],
)
def test_processors_become_a_quota_within_a_period(cpus: float, quota: tuple[int, int]) -> None:
    assert convert.cfs_quota(cpus) == quota


@given(st.floats(min_value=0.001, max_value=4096))
def test_a_quota_is_one_that_the_kernel_takes_and_is_close_to_what_was_asked(cpus: float) -> None:
    quota, period = convert.cfs_quota(cpus)
    assert quota >= 1_000
    assert period <= 1_000_000
    assert abs(quota / period - cpus) <= 0.5 / 100_000 + 1e-9 * cpus


def test_version_1_limits_memory_before_memory_and_swap() -> None:
    assert v1.settings("memory", 4096) == (
        ("memory.limit_in_bytes", "4096", True),
        ("memory.memsw.limit_in_bytes", "4096", False),
    )
    assert v1.settings("cpus", 1.5) == (("cpu.cfs_period_us", "100000", True), ("cpu.cfs_quota_us", "150000", True))
    assert v1.settings("pids", 7) == (("pids.max", "7", True),)


def test_version_2_gives_no_swap_and_kills_the_group_as_one() -> None:
    assert v2.settings("memory", 4096) == (
        ("memory.max", "4096", True),
        ("memory.swap.max", "0", False),
    )
    assert v2.settings("cpus", 1.5) == (("cpu.max", "150000 100000", True),)
    assert v2.settings("pids", 7) == (("pids.max", "7", True),)


def test_a_keyed_file_is_its_numbers() -> None:
    assert convert.flat_keyed("low 0\noom_kill 3\nodd\nlist 1 2\n") == {"low": 0, "oom_kill": 3}


@pytest.mark.parametrize(
    ("text", "value"), [("12\n", 12), ("max\n", None), ("9223372036854771712\n", None), (None, None), ("", None)]
)
def test_no_limit_is_none(text: str | None, value: int | None) -> None:
    assert convert.number(text) == value


def test_the_mounts_of_both_versions_are_read() -> None:
    cpu, memory, _, unified = convert.parse_mountinfo(V1_MOUNTS)
    assert (cpu.version, cpu.controllers, cpu.writable) == (1, ("rw", "cpu", "cpuacct"), True)
    assert (memory.root, memory.point, memory.writable) == ("/docker/7", "/sys/fs/cgroup/my memory", False)
    assert (unified.version, unified.root, unified.writable) == (2, "/", True)


def test_memberships_are_by_controller_and_that_of_version_2_has_no_name() -> None:
    assert convert.parse_memberships(V1_MEMBERSHIPS) == {
        "name=systemd": "/user:odd",
        "memory": "/docker/7/x",
        "cpu": "/",
        "cpuacct": "/",
        "": "/unified",
    }


@given(st.text(alphabet="a \t\n\\0", max_size=12))
def test_an_escaped_name_comes_back_whole(name: str) -> None:
    escaped = "".join(f"\\{ord(one):03o}" if one in " \t\n\\" else one for one in name)
    assert convert.unescape(escaped) == name


@pytest.mark.parametrize(
    ("root", "path", "directory"),
    [
        ("/", "/", "/m"),
        ("/", "/a/b", "/m/a/b"),
        ("/a", "/a/b", "/m/b"),
        ("/a", "/a", "/m"),
        ("/a", "/ab", None),
        ("/a", "/", None),
        ("/", "/../b", None),
        ("/..", "/", None),
        ("/..", "/../b", "/m/b"),
    ],
)
def test_a_group_is_found_where_the_mount_shows_it(root: str, path: str, directory: str | None) -> None:
    assert convert.locate(convert.Mounted(1, root, "/m", writable=True, controllers=()), path) == directory


def test_the_lineage_runs_from_the_mount_down() -> None:
    assert convert.lineage("/m", "/m/a/b") == ["/m", "/m/a", "/m/a/b"]
    assert convert.lineage("/m", "/m") == ["/m"]


def procfs(folder: Path, mountinfo: str, memberships: str) -> str:
    (folder / "self").mkdir()
    (folder / "self/mountinfo").write_text(mountinfo)
    (folder / "self/cgroup").write_text(memberships)
    return str(folder)


def group(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in {"type": "domain", "procs": "", "freeze": "0", **files}.items():
        (folder / f"cgroup.{name}").write_text(text)
    return folder


def test_a_read_only_mount_is_named_with_what_to_do(tmp_path: Path) -> None:
    found = find(procfs(tmp_path, V1_MOUNTS, V1_MEMBERSHIPS)).memory
    assert found.version == 0
    assert found.reason == "/sys/fs/cgroup/my memory is mounted read-only"
    assert "docker run" in found.hint


def test_a_controller_that_is_nowhere_is_named_with_what_to_do(tmp_path: Path) -> None:
    found = find(procfs(tmp_path, V1_MOUNTS[: V1_MOUNTS.index("41 31")], "4:memory:/docker/7/x\n")).pids
    assert found.reason == "no cgroup hierarchy with the pids controller is mounted"
    assert "cgroup_enable=pids" in found.hint


def test_a_group_outside_of_what_is_mounted_is_said_to_be_so(tmp_path: Path) -> None:
    mounts = V1_MOUNTS.replace(" / /sys/fs/cgroup/cpu,", " /docker/8 /sys/fs/cgroup/cpu,")
    found = find(procfs(tmp_path, mounts, V1_MEMBERSHIPS)).cpus
    assert found.reason.startswith("this process's group / is not below /docker/8")


def unified(tmp_path: Path, path: str) -> str:
    point = str(tmp_path / "cgroup").replace(" ", "\\040")
    return procfs(tmp_path, f"9 1 0:9 / {point} rw - cgroup2 cgroup2 rw\n", f"0::{path}\n")


def test_a_controller_that_was_not_handed_down_is_asked_of_the_groups_above(tmp_path: Path) -> None:
    top = group(tmp_path / "cgroup", controllers="memory cpu", subtree_control="memory")
    group(top / "mine", controllers="memory", subtree_control="")
    found = find(unified(tmp_path, "/mine"))
    assert found.cpus.version == found.memory.version == found.freezer.version == 2
    assert found.pids.version == 0
    assert found.pids.reason.startswith(f"no delegated cgroup: {top}/mine has no pids controller")
    assert found.pids.hint == "run pytest in a group of its own: systemd-run --user --scope -p Delegate=yes pytest"


def test_processes_of_another_pid_namespace_are_in_the_way(tmp_path: Path) -> None:
    group(tmp_path / "cgroup", controllers="memory", subtree_control="", procs="1\n0\n")
    assert "processes of another pid namespace" in find(unified(tmp_path, "/")).memory.reason


def test_the_second_run_works_beside_the_leaf_that_the_first_moved_it_to(tmp_path: Path) -> None:
    top = group(tmp_path / "cgroup", controllers="memory", subtree_control="memory")
    mine = group(top / "mine", controllers="memory", subtree_control="memory")
    group(mine / v2.LEAF, controllers="memory", subtree_control="")
    found = find(unified(tmp_path, f"/mine/{v2.LEAF}"))
    assert found.memory.base == str(mine)
    assert found.memory.version == 2


def test_a_hierarchy_without_limits_is_false_and_pickles(tmp_path: Path) -> None:
    found = find(procfs(tmp_path, "", "0::/\n"))
    assert not found
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_limit_that_cannot_be_had_is_refused_with_the_reason(tmp_path: Path) -> None:
    run = find(procfs(tmp_path, "", "0::/\n")).create_run("r")
    with pytest.raises(OSError, match="no cgroup hierarchy with the memory controller"):
        run.create("1", Limits(1 << 20, None, None))


def test_a_group_without_limits_is_nowhere(tmp_path: Path) -> None:
    run = find(procfs(tmp_path, "", "0::/\n")).create_run("r")
    nothing = run.create("1", Limits(None, None, None), ("freezer",))
    nothing.join()
    assert (nothing.paths(), nothing.freeze(), nothing.thaw(), nothing.kill()) == ((), False, False, False)
    assert read_stats(nothing.paths()) == Stats(None, None, None, None, None, None)
    assert nothing.oom_kills() is None
    nothing.remove()
    run.remove()


def test_the_paths_of_a_group_go_through_marshal() -> None:
    paths = ((1, "/a/1"), (2, "/b/1"))
    assert Group(marshal.loads(marshal.dumps(Group(paths).paths()))).paths() == paths


def test_what_a_group_uses_is_unknown_after_its_end(tmp_path: Path) -> None:
    for number in (1, 2):
        assert set(read_stats([(number, str(tmp_path / "gone"))])) == {None}


def test_importing_it_brings_no_slow_module() -> None:
    folder = os.path.dirname(os.path.dirname(sys.modules["pytest_sandbox_runtime"].__file__ or ""))
    code = f"""
import sys
sys.path.insert(0, {folder!r})
import pytest_sandbox_runtime.cgroups
print({{"typing", "dataclasses", "re", "json", "subprocess", "pathlib"}} & set(sys.modules))
"""
    said = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "set()"
