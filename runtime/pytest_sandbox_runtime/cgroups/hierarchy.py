"""PYTEST_DONT_REWRITE. Where this process may make groups, for each limit, or why it may not."""

from __future__ import annotations

from collections import namedtuple

from pytest_sandbox_runtime.cgroups import v2
from pytest_sandbox_runtime.cgroups.convert import Limits, locate, parse_memberships, parse_mountinfo
from pytest_sandbox_runtime.cgroups.files import read
from pytest_sandbox_runtime.cgroups.groups import Run, version_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_sandbox_runtime.cgroups.convert import Mounted

# Version 0 says that the limit is not enforced, and then ``reason`` and ``hint`` say why and what to do.
# ``base`` is the group below which groups are made, ``top`` the highest one that can be seen.
Place = namedtuple("Place", "version controller top base reason hint")

# In the order of Hierarchy's fields.
_CONTROLLERS = ("memory", "cpu", "pids", "freezer", "cpuacct")
_HINTS = {
    1: "run pytest as root, or have root give this group to you (chown)",
    2: "run pytest in a group of its own: systemd-run --user --scope -p Delegate=yes pytest",
}
_READ_ONLY = "mount it writable; in Docker, for instance, by docker run --privileged --cgroupns=private"
_ABSENT = "see /proc/cgroups; some systems want cgroup_enable={0} on the kernel's command line"


class Hierarchy(namedtuple("Hierarchy", "memory cpus pids freezer cpuacct")):
    """A Place for each limit, and for the freezer and cpuacct, which are taken where they are to be had."""

    __slots__ = ()

    def __bool__(self) -> bool:
        """Return whether any limit is enforced."""
        return any(self.place(limit).version for limit in Limits._fields)

    def place(self, name: str) -> Place:
        """Return the Place of one limit."""
        place: Place = getattr(self, name)
        return place

    def create_run(self, name: str) -> Run:
        """Return the groups of a run; nothing is made before the first group that has a limit."""
        return Run(self, name)

    def prepare(self) -> Hierarchy:
        """Make room for child groups where version 2 needs it; returned is what is enforced now.

        Call this in the pid namespace of those who share this process's group, before the first limit is set: it
        moves them to a group beside (v2.hand_down says why).
        """
        return Hierarchy(*map(_prepared, self))


def _prepared(place: Place) -> Place:
    if place.version != v2.NUMBER or place.controller in v2.BUILT_IN:
        return place
    try:
        v2.hand_down(place.top, place.base, [place.controller])
    except OSError as error:
        return place._replace(version=0, reason=f"cannot make room for child groups: {error}", hint=_HINTS[2])
    return place


def find(procfs: str = "/proc") -> Hierarchy:
    """Return where this process may make groups. Nothing is changed."""
    mounts = parse_mountinfo(read(f"{procfs}/self/mountinfo"))
    memberships = parse_memberships(read(f"{procfs}/self/cgroup"))
    return Hierarchy(*(_find(controller, mounts, memberships) for controller in _CONTROLLERS))


def _find(controller: str, mounts: list[Mounted], memberships: dict[str, str]) -> Place:
    """Look where /proc/self/cgroup says that the controller is: it is in one hierarchy only."""
    if controller in memberships:
        shown = [mounted for mounted in mounts if controller in mounted.controllers]
        return _best(controller, shown, memberships[controller])
    shown = [mounted for mounted in mounts if mounted.version == v2.NUMBER]
    return _best(controller, shown, memberships.get("", "/"))


def _best(controller: str, mounts: list[Mounted], path: str) -> Place:
    places = [_judge(controller, mounted, path) for mounted in mounts]
    if not places:
        reason = f"no cgroup hierarchy with the {controller} controller is mounted"
        return Place(0, controller, "", "", reason, _ABSENT.format(controller))
    return max(places, key=lambda place: place.version)


def _judge(controller: str, mounted: Mounted, path: str) -> Place:
    own = locate(mounted, path)
    if own is None:
        reason = f"this process's group {path} is not below {mounted.root}, which is all that {mounted.point} shows"
        return Place(0, controller, mounted.point, "", reason, _HINTS[mounted.version])
    base = v2.base_of(own) if mounted.version == v2.NUMBER and own != mounted.point else own
    if not mounted.writable:
        return Place(0, controller, mounted.point, base, f"{mounted.point} is mounted read-only", _READ_ONLY)
    try:
        reason = version_of(mounted.version).obstacle(base, mounted.point, controller)
    except OSError as error:
        reason = str(error)
    hint = _HINTS[mounted.version] if reason else ""
    return Place(0 if reason else mounted.version, controller, mounted.point, base, reason, hint)
