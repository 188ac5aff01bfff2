"""PYTEST_DONT_REWRITE. What has changed in a sandbox, as the upper directories of its overlays tell.

An overlay's upper directory holds what was written. A character device 0:0 in it, a whiteout, stands for what was
deleted, and an opaque directory shows nothing of the directories below it: see the kernel's overlayfs.rst.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import FileAccessError, SpecError
from pytest_sandbox_runtime.lowers import is_opaque, is_whiteout, look_up
from pytest_sandbox_runtime.trees import Place, closing, kind_of, open_directory, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_sandbox_runtime.lowers import Seen

KINDS = ("added", "modified", "deleted")
_CHUNK = 1 << 20
_HERE = -100  # AT_FDCWD; a lower layer's path is absolute


@dataclass(frozen=True, order=True)
class Change:
    """One path that changed. ``kind`` is added, modified or deleted; ``type`` file, directory, symlink and so on.

    What was deleted has the type that it had; in changes written by hand the type is empty.
    """

    path: str
    kind: str
    type: str = ""


@dataclass(frozen=True, init=False, repr=False)
class Changes:
    """What was added, modified and deleted: absolute paths, sorted. False where nothing was.

    Of a deleted directory only itself is listed, of an added one all that is in it, too. A directory is modified
    when its mode or owner changed. Iterate for each path's Change; equality is by paths and not by types.
    """

    added: tuple[str, ...]
    modified: tuple[str, ...]
    deleted: tuple[str, ...]

    def __init__(
        self,
        added: Iterable[str] = (),
        modified: Iterable[str] = (),
        deleted: Iterable[str] = (),
        *,
        types: Mapping[str, str] | None = None,
    ) -> None:
        for kind, paths in zip(KINDS, (added, modified, deleted), strict=True):
            object.__setattr__(self, kind, _checked(kind, paths))
        object.__setattr__(self, "_types", dict(types or {}))

    @classmethod
    def of(cls, changes: Iterable[Change]) -> Changes:
        """Return the changes that ``changes`` are, in whatever order they come."""
        found = tuple(changes)
        paths = ([change.path for change in found if change.kind == kind] for kind in KINDS)
        return cls(*paths, types={change.path: change.type for change in found})

    def below(self, path: str) -> Changes:
        """Return what changed at ``path`` or below it."""
        return Changes.of(change for change in self if _is_below(change.path, path))

    def without(self, *paths: str) -> Changes:
        """Return what changed neither at nor below any of ``paths``."""
        return Changes.of(change for change in self if not any(_is_below(change.path, path) for path in paths))

    def __iter__(self) -> Iterator[Change]:
        types: dict[str, str] = self.__dict__["_types"]
        return iter(sorted(Change(path, kind, types.get(path, "")) for kind in KINDS for path in getattr(self, kind)))

    def __len__(self) -> int:
        return len(self.added) + len(self.modified) + len(self.deleted)

    def __repr__(self) -> str:
        lists = (f"{kind}={list(getattr(self, kind))!r}" for kind in KINDS if getattr(self, kind))
        return f"Changes({', '.join(lists)})"


def explain_difference(left: Changes, right: Changes) -> list[str]:
    """Return lines that say how ``left`` differs from ``right``: none where they are equal."""
    ours, theirs = ({change.path: change for change in changes} for changes in (left, right))
    both = sorted(path for path in ours.keys() & theirs.keys() if ours[path].kind != theirs[path].kind)
    return [
        *_section("only in the left changes:", [_describe(ours[path]) for path in sorted(ours.keys() - theirs.keys())]),
        *_section(
            "only in the right changes:", [_describe(theirs[path]) for path in sorted(theirs.keys() - ours.keys())]
        ),
        *_section("changed otherwise:", [f"{path}: {ours[path].kind} != {theirs[path].kind}" for path in both]),
    ]


def read_changes(overlays: Iterable[tuple[str, str, Sequence[str]]]) -> Changes:
    """Return what changed in a sandbox whose overlays are: where it is mounted, its upper, its lowers from the top.

    A file that was copied up and is as before, in content, mode, owner and mtime, is no change. Raises
    FileAccessError where a layer cannot be read.
    """
    return Changes.of(change for prefix, upper, lowers in overlays for change in _read_overlay(prefix, upper, lowers))


def _checked(kind: str, paths: Iterable[str]) -> tuple[str, ...]:
    checked = (paths,) if isinstance(paths, str) else tuple(sorted(paths))
    if isinstance(paths, str) or not all(path.startswith("/") for path in checked):
        raise SpecError(f"{kind}={paths!r} is no list of absolute paths", hint=f'for example {kind}=["/etc/hosts"]')
    return checked


def _is_below(path: str, above: str) -> bool:
    stripped = above.rstrip("/")
    return path == stripped or path.startswith(f"{stripped}/")


def _section(title: str, lines: list[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines)] if lines else []


def _describe(change: Change) -> str:
    shown = change.path.encode(errors="backslashreplace").decode()
    return f"{change.kind:8} {shown}" + (f" ({change.type})" if change.type else "")


def _read_overlay(prefix: str, upper: str, lowers: Sequence[str]) -> Iterator[Change]:
    try:
        with closing(os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
            yield from _compare_directory(fd, tuple(lowers), prefix, replaced=False)
    except FileAccessError:
        raise
    except OSError as error:
        raise FileAccessError(
            f"cannot read the changes below {prefix}: {error}",
            errno=error.errno or 0,
            filename=str(error.filename or upper),
            hint="without root, directories of the sandbox's other users cannot be read from outside",
        ) from error


def _compare_directory(fd: int, lowers: tuple[str, ...], path: str, *, replaced: bool) -> Iterator[Change]:
    # What is in an opaque directory was made there, and the kernel does not mark it once more.
    replaced = replaced or is_opaque(fd)
    names = sorted(os.listdir(fd))
    for name in names:
        below = look_up(lowers, name)
        try:
            yield from _compare_entry(Place(fd, name), below, os.path.join(path, name), replaced=replaced)
        except FileNotFoundError:
            continue  # the sandbox is alive, and has just removed it
    if replaced:
        yield from _left_behind(lowers, names, path)


def _compare_entry(place: Place, below: Seen | None, path: str, *, replaced: bool) -> Iterator[Change]:
    status = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
    if is_whiteout(status):
        if below is not None:
            yield Change(path, "deleted", kind_of(below.status))
        return
    if below is None:
        yield Change(path, "added", kind_of(status))
    elif _differs(place, status, below):
        yield Change(path, "modified", kind_of(status))
    if stat.S_ISDIR(status.st_mode):
        with closing(open_directory(place)) as fd:
            yield from _compare_directory(fd, below.merged if below else (), path, replaced=replaced)


def _left_behind(lowers: tuple[str, ...], names: list[str], path: str) -> Iterator[Change]:
    hidden = {name for lower in lowers for name in os.listdir(lower)}.difference(names)
    for name in sorted(hidden):
        below = look_up(lowers, name)
        if below is not None:
            yield Change(os.path.join(path, name), "deleted", kind_of(below.status))


def _differs(place: Place, status: os.stat_result, below: Seen) -> bool:
    before = below.status
    if (status.st_mode, status.st_uid, status.st_gid) != (before.st_mode, before.st_uid, before.st_gid):
        return True
    if stat.S_ISDIR(status.st_mode):  # its mtime is that of what was made in it
        return False
    if (status.st_mtime_ns, status.st_size, status.st_rdev) != (before.st_mtime_ns, before.st_size, before.st_rdev):
        return True
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(place.name, dir_fd=place.directory) != os.readlink(below.place)
    return stat.S_ISREG(status.st_mode) and not _has_content_of(place, below.place)


def _has_content_of(place: Place, below: str) -> bool:
    try:
        with closing(open_regular(place)) as ours, closing(open_regular(Place(_HERE, below))) as theirs:
            return _has_same_content(ours, theirs)
    except PermissionError:
        return False  # it was written to by someone else: better one change too many than one too few


def _has_same_content(left: int, right: int) -> bool:
    while True:
        chunk = os.read(left, _CHUNK)
        if chunk != os.read(right, _CHUNK):
            return False
        if not chunk:
            return True
