"""PYTEST_DONT_REWRITE. The groups of a run: one directory for each sandbox and hierarchy, made, joined and removed."""

from __future__ import annotations

import errno
import os
import time

from pytest_sandbox_runtime.cgroups import v1, v2
from pytest_sandbox_runtime.cgroups.convert import Limits, Stats
from pytest_sandbox_runtime.cgroups.files import GONE, breathe
from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.pseudo_files import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from pytest_sandbox_runtime.cgroups.convert import Setting
    from pytest_sandbox_runtime.cgroups.hierarchy import Hierarchy, Place

    # Version and directory, as marshal takes them.
    Path = tuple[int, str]

    class Version(Protocol):
        """What both versions can do."""

        def obstacle(self, directory: str, top: str, controller: str) -> str: ...
        def prepare(self, top: str, base: str, run: str, controllers: Iterable[str]) -> None: ...
        def furnish(self, directory: str) -> None: ...
        def settings(self, limit: str, amount: float) -> tuple[Setting, ...]: ...
        def read_stats(self, directory: str) -> Stats: ...
        def freeze(self, directory: str, deadline: float) -> None: ...
        def thaw(self, directory: str) -> None: ...
        def can_freeze(self, directory: str) -> bool: ...
        def kill(self, directory: str) -> bool: ...
        def await_empty(self, directory: str, deadline: float) -> None: ...


PREFIX = "pytest-sandbox-"
PATIENCE = 2.0


def version_of(number: int) -> Version:
    """Return what carries out version ``number``."""
    return v2 if number == v2.NUMBER else v1


class Group:
    """A sandbox's group in each hierarchy that its limits need; in none where it has none.

    ``paths`` of one process make the same group in another.
    """

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._paths = [(int(number), str(directory)) for number, directory in paths]

    def __repr__(self) -> str:
        return f"<Group {' '.join(directory for _, directory in self._paths) or 'without limits'}>"

    def paths(self) -> tuple[Path, ...]:
        """Return version and directory of each, as plain values that marshal takes."""
        return tuple(self._paths)

    def join(self, pid: int = 0) -> None:
        """Put process ``pid``, or the caller, and the children it will have in the group."""
        for _, directory in self._paths:
            write(f"{directory}/cgroup.procs", str(pid))

    def oom_kills(self) -> int | None:
        """Return how many processes were killed for lack of memory; None without a memory limit."""
        kills: int | None = read_stats(self._paths).oom_kills
        return kills

    def kill(self) -> bool:
        """Kill all processes at once; False where the kernel has no such thing (version 1, or before Linux 5.14)."""
        killed = [version_of(number).kill(directory) for number, directory in self._paths]
        return any(killed)

    def freeze(self, timeout: float = PATIENCE) -> bool:
        """Return once no process runs; False where the group was made without freezer.

        On version 1 a frozen process does not die of SIGKILL before it is thawed.
        """
        deadline = time.monotonic() + timeout
        freezers = self._freezers()
        for version, directory in freezers:
            version.freeze(directory, deadline)
        return bool(freezers)

    def thaw(self) -> bool:
        """Let the processes go on; False where the group was made without freezer."""
        freezers = self._freezers()
        for version, directory in freezers:
            version.thaw(directory)
        return bool(freezers)

    def _freezers(self) -> list[tuple[Version, str]]:
        versions = [(version_of(number), directory) for number, directory in self._paths]
        return [(version, directory) for version, directory in versions if version.can_freeze(directory)]

    def remove(self, timeout: float = PATIENCE) -> None:
        """Remove the directories, once the dying processes are out of them; again: nothing.

        Raises the OSError of the first that could not be removed, after trying all.
        """
        remove_all(self._paths, timeout)

    def add(self, number: int, directory: str) -> None:
        """Make ``directory`` and let it be part of this group."""
        os.mkdir(directory, 0o755)
        self._paths.append((number, directory))
        version_of(number).furnish(directory)


class Run:
    """The groups of one run: below one directory in each hierarchy, made when the first group needs it."""

    def __init__(self, hierarchy: Hierarchy, name: str) -> None:
        self._hierarchy = hierarchy
        self._directory = PREFIX + name
        self._ready: dict[Path, set[str]] = {}

    def create(self, name: str, limits: Limits, extras: Iterable[str] = ()) -> Group:
        """Make group ``name`` with ``limits``, or nothing at all if one of them cannot be had.

        ``extras`` names what is taken where it is to be had: ``freezer``, and ``cpuacct`` for Stats.cpu_seconds.
        """
        amounts = {limit: amount for limit, amount in zip(Limits._fields, limits, strict=True) if amount is not None}
        places = [self._hierarchy.place(limit) for limit in amounts]
        places += [place for place in map(self._hierarchy.place, extras) if place.version]
        group = Group()
        try:
            for base, controllers in _by_base(places).items():
                self._add(group, base, controllers, name)
            for limit, amount in amounts.items():
                self._limit(name, limit, amount)
        except BaseException:
            group.remove()
            raise
        return group

    def _add(self, group: Group, base: tuple[int, str, str], controllers: set[str], name: str) -> None:
        number, top, directory = base
        run = f"{directory}/{self._directory}"
        # Kept before it is made, so that remove() finds what was made before a failure.
        ready = self._ready.setdefault((number, run), set())
        if controllers <= ready:
            try:
                group.add(number, f"{run}/{name}")
            except FileNotFoundError:
                # Another run may have taken the empty directory for a dead one's.
                ready = set()
            else:
                return
        version_of(number).prepare(top, directory, run, sorted(ready | controllers))
        self._ready[number, run] = ready | controllers
        group.add(number, f"{run}/{name}")

    def _limit(self, name: str, limit: str, amount: float) -> None:
        place = self._hierarchy.place(limit)
        for setting in version_of(place.version).settings(limit, amount):
            try:
                write(f"{place.base}/{self._directory}/{name}/{setting.file}", setting.value)
            except FileNotFoundError:
                if setting.required:
                    raise

    def remove(self, timeout: float = PATIENCE) -> None:
        """Remove the run's directories and what is in them; again: nothing."""
        ready, self._ready = self._ready, {}
        remove_all(list(ready), timeout)


def _by_base(places: list[Place]) -> dict[tuple[int, str, str], set[str]]:
    """Return the controllers for each base: all of version 2, and some of version 1, share one."""
    bases: dict[tuple[int, str, str], set[str]] = {}
    for place in places:
        if not place.version:
            raise OSError(errno.EOPNOTSUPP, place.reason, place.base or None)
        bases.setdefault((place.version, place.top, place.base), set()).add(place.controller)
    return bases


def read_stats(paths: Iterable[Path]) -> Stats:
    """Return what the group behind ``Group.paths()`` uses; None for what is not known, as after its end."""
    known = [version_of(number).read_stats(directory) for number, directory in paths]
    return (
        Stats(*(_first(values) for values in zip(*known, strict=True)))
        if known
        else Stats(*[None] * len(Stats._fields))
    )


class OomWatch:
    """Sees what the kernel kills, out of memory, in the groups behind ``Group.paths()``, None for no groups."""

    def __init__(self, paths: Iterable[Path] | None) -> None:
        self._paths = paths
        self._seen = 0

    def has_killed(self) -> bool:
        """Whether something was killed since this was last asked."""
        if not self._paths:
            return False
        try:
            kills = read_stats(self._paths).oom_kills or 0
        except OSError:
            return False
        seen, self._seen = self._seen, kills
        return kills > seen


def _first(values: tuple[float | None, ...]) -> float | None:
    return next((value for value in values if value is not None), None)


def remove_all(paths: Iterable[Path], timeout: float) -> None:
    """Remove groups and the groups below them, each though an earlier one failed."""
    deadline = time.monotonic() + timeout
    failed = None
    for number, directory in paths:
        try:
            _remove(version_of(number), directory, deadline)
        except OSError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def _remove(version: Version, directory: str, deadline: float) -> None:
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                raise SyscallError("rmdir", error.errno or 0, directory) from error
        else:
            return
        _empty(version, directory, deadline)


def _empty(version: Version, directory: str, deadline: float) -> None:
    try:
        for below in _below(directory):
            _remove(version, below, deadline)
        version.await_empty(directory, deadline)
    except OSError as error:
        if error.errno not in GONE:
            raise
    # A process that has just died may hold its group for a moment longer than it shows there.
    breathe()


def _below(directory: str) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def remains(hierarchy: Hierarchy, is_alive: Callable[[str], bool], timeout: float = PATIENCE) -> list[str]:
    """Remove the groups of dead runs and return the names of those that are gone.

    ``is_alive`` is asked about each name that create_run was given; it says True of what it does not know. Nothing
    is killed: dead supervisors leave dead processes, or, on version 1, frozen ones, which die when they are thawed.
    """
    removed: dict[str, bool] = {}
    places: Iterable[Place] = hierarchy
    bases = {(int(place.version), str(place.base)) for place in places if place.version}
    for number, base in sorted(bases):
        for directory in _below(base):
            name = os.path.basename(directory)
            if name.startswith(PREFIX) and not is_alive(name[len(PREFIX) :]):
                gone = _remove_remains(number, directory, timeout)
                removed[name[len(PREFIX) :]] = gone and removed.get(name[len(PREFIX) :], True)
    return [name for name, gone in removed.items() if gone]


def _remove_remains(number: int, directory: str, timeout: float) -> bool:
    try:
        for below in _below(directory):
            Group([(number, below)]).thaw()
        remove_all([(number, directory)], timeout)
    except FileNotFoundError:
        return True
    except OSError:
        # Its next finder tries again.
        return False
    return True
