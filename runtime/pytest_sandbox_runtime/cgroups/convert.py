"""PYTEST_DONT_REWRITE. What the kernel's texts mean and what limits are in its units: pure functions of cgroups(7)."""

from __future__ import annotations

from collections import namedtuple

# Bytes, processors, number of tasks; None is no limit.
Limits = namedtuple("Limits", "memory cpus pids")
# Bytes, bytes, bytes, seconds, number of tasks, number of processes; None is unknown, or no limit.
Stats = namedtuple("Stats", "memory memory_peak memory_limit cpu_seconds pids oom_kills")
# One line of proc_pid_mountinfo(5), for a file system that is cgroup or cgroup2.
Mounted = namedtuple("Mounted", "version root point writable controllers")
# What is written where; only what is not ``required`` may be missing in a kernel.
Setting = namedtuple("Setting", "file value required")

_PERIOD = 100_000
# The kernel refuses a quota below 1 ms and a period above 1 s.
_MIN_QUOTA = 1_000
_MAX_PERIOD = 1_000_000
_UNLIMITED = 1 << 62


def cfs_quota(cpus: float) -> tuple[int, int]:
    """Return the quota and the period, in microseconds, that let a group have ``cpus`` processors' time."""
    quota = round(cpus * _PERIOD)
    if quota >= _MIN_QUOTA:
        return quota, _PERIOD
    return max(_MIN_QUOTA, round(cpus * _MAX_PERIOD)), _MAX_PERIOD


def flat_keyed(text: str) -> dict[str, int]:
    """Return the numbers of a "flat keyed" file, as memory.events or cpu.stat is."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == len(("key", "value")) and pair[1].isdigit()}


def number(text: str | None) -> int | None:
    """Return the number in a file of one value; None for "max", which v1 writes as a huge number."""
    if text is None or not text.strip().isdigit():
        return None
    value = int(text)
    return value if value < _UNLIMITED else None


def parse_mountinfo(text: str) -> list[Mounted]:
    """Return the cgroup mounts in a mountinfo file."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        if separator and after.split(" ")[0] in ("cgroup", "cgroup2"):
            mounts.append(_mounted(before.split(" "), after.split(" ")))
    return mounts


def _mounted(before: list[str], after: list[str]) -> Mounted:
    root, point, options = before[3:6]
    # mount options hold for this mount, the super block's for all: either may forbid writing.
    super_options = after[2].split(",")
    writable = "ro" not in options.split(",") and "ro" not in super_options
    version = 2 if after[0] == "cgroup2" else 1
    controllers = tuple(super_options) if version == 1 else ()
    return Mounted(version, unescape(root), unescape(point), writable, controllers)


def unescape(text: str) -> str:
    r"""Return ``text`` with mountinfo's octal escapes (``\040`` for a space) undone."""
    first, *others = text.split("\\")
    return first + "".join(chr(int(other[:3], 8)) + other[3:] for other in others)


def parse_memberships(text: str) -> dict[str, str]:
    """Return the group of each v1 controller in a /proc/PID/cgroup file, and that of v2 under the empty name."""
    groups = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def locate(mounted: Mounted, path: str) -> str | None:
    """Return the directory of group ``path``, or None where the mount does not show it.

    A container's mount shows a subtree, whose root is ``mounted.root``; both paths are relative to the cgroup
    namespace's root and may begin with "/.." (cgroup_namespaces(7)).
    """
    root = mounted.root.rstrip("/")
    if path.rstrip("/") == root:
        return str(mounted.point)
    if not path.startswith(root + "/") or ".." in path[len(root) :].split("/"):
        return None
    return str(mounted.point).rstrip("/") + path[len(root) :].rstrip("/")


def lineage(top: str, directory: str) -> list[str]:
    """Return the directories from ``top`` down to ``directory``, both included."""
    names = directory[len(top) :].strip("/").split("/")
    path, paths = top, [top]
    for name in filter(None, names):
        path = f"{path.rstrip('/')}/{name}"
        paths.append(path)
    return paths
