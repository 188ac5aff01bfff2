"""PYTEST_DONT_REWRITE. What a layer has to say: an overlay's upper directory, compared with those below it.

Where the lower directories are known, the entries depend on nothing but what is seen before and after, and not on how
it came about:

- what was copied up and is as before (type, mode, owner, attributes, mtime, content) is left out;
- a directory that is as before is there only as the parent of something. When its mtime is later than the epoch, then
  because of something made or removed in it, maybe for a moment only: it keeps the mtime that it had;
- an opaque directory becomes a whiteout for each name that is gone (the image-spec has writers prefer that), and a
  whiteout of nothing is left out.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from pytest_sandbox_runtime.images.attributes import attributes_of, owners_in
from pytest_sandbox_runtime.images.layer.header import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    SYMLINK,
    Entry,
)
from pytest_sandbox_runtime.lowers import (
    Seen,
    get_xattr,
    has_marked_whiteouts,
    has_whiteout_mark,
    is_whiteout,
    look_up,
)
from pytest_sandbox_runtime.trees import Place, closing, open_directory, open_regular

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pytest_sandbox_runtime.images.attributes import Identities

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_HERE = -100  # AT_FDCWD; a lower layer's path is absolute
_CHUNK = 1 << 20
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFIFO: FIFO,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
}
_ROOT = Entry(b".", DIRECTORY, 0o755)


class Member(NamedTuple):
    """An entry, and for a regular file the descriptor of its data, open until the next is asked for."""

    entry: Entry
    data: int = -1


class _Directory:
    """A directory on the way: what is left to be looked at, and its own entry as long as nobody needs it."""

    def __init__(self, fd: int, path: bytes, lowers: tuple[str, ...], *, replaced: bool) -> None:
        self.fd = fd
        self.path = path
        self.lowers = lowers
        self.replaced = replaced
        self.owners = owners_in(fd)
        self.pending: Entry | None = None
        self.left: Iterator[tuple[bytes, os.stat_result | None]] = iter(())

    def path_of(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name


class Walk:
    """One look at an upper directory, whose lower directories are ``lowers``, top first, or not known (None).

    ``at`` is the path that it is at, for errors; the paths ``without`` are passed over.
    """

    def __init__(
        self,
        lowers: Sequence[str] | None,
        epoch: int,
        identities: Identities,
        without: Collection[str],
        *,
        user_namespace: bool,
    ) -> None:
        self.at = b""
        self._without = frozenset(map(os.fsencode, without))
        self._lowers = None if lowers is None else tuple(lowers)
        self._epoch = epoch
        self._identities = identities
        self._opaque = f"{'user' if user_namespace else 'trusted'}.overlay.opaque"
        self._linked: dict[tuple[int, int], bytes] = {}
        self._way: list[_Directory] = []

    def members(self, upper: str) -> Iterator[Member]:
        """Yield what the layer of ``upper`` consists of; parents first, and in each directory sorted by name."""
        below = Seen(self._lowers[0], os.stat(self._lowers[0]), self._lowers) if self._lowers else None
        try:
            yield from self._enter(os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), b"", below)
            while self._way:
                directory = self._way[-1]
                name, status = next(directory.left, (b"", None))
                if not name:
                    os.close(self._way.pop().fd)
                elif status is None:
                    yield from self._needed(Member(Entry(directory.path_of(WHITEOUT + name))))
                else:
                    yield from self._look_at(directory, name, status)
        finally:
            for directory in self._way:
                os.close(directory.fd)

    def _needed(self, *members: Member) -> Iterator[Member]:
        """Yield the directories on the way to where we are that nobody needed before, and ``members``."""
        for directory in self._way:
            if directory.pending is not None:
                yield Member(directory.pending)
                directory.pending = None
        yield from members

    def _look_at(self, directory: _Directory, name: bytes, status: os.stat_result) -> Iterator[Member]:
        self.at = directory.path_of(name)
        if name.startswith(WHITEOUT):
            raise ValueError("a name that begins with .wh. has another meaning in a layer")
        place = Place(directory.fd, os.fsdecode(name))
        below = look_up(directory.lowers, place.name)
        if stat.S_ISDIR(status.st_mode):
            yield from self._enter(open_directory(place), self.at, below)
        elif stat.S_ISREG(status.st_mode):
            with closing(open_regular(place)) as fd:
                yield from self._file(fd, below)
        elif stat.S_IFMT(status.st_mode) in _KINDS:  # nobody listens at a socket any more, and no tar can say one
            yield from self._node(place, status, directory.owners, below)

    # Directories

    def _enter(self, fd: int, path: bytes, below: Seen | None) -> Iterator[Member]:
        self.at = path
        is_opaque = get_xattr(fd, self._opaque) == b"y"
        # What is in an opaque directory was made there, and the kernel does not mark it once more.
        replaced = is_opaque or bool(self._way and self._way[-1].replaced)
        directory = _Directory(fd, path, below.merged if below else (), replaced=replaced)
        self._way.append(directory)
        entry = self._directory_entry(fd, path or b".", below)
        before = self._entry_below(below, path) if path else self._root_below(below)
        if entry != before:
            directory.pending = entry
            yield from self._needed()
        elif path:
            directory.pending = entry
        if is_opaque and self._lowers is None:
            yield from self._needed(Member(Entry(directory.path_of(OPAQUE))))
        directory.left = self._contents(directory)

    def _directory_entry(self, fd: int, path: bytes, below: Seen | None) -> Entry:
        status = os.fstat(fd)
        entry = self._open_entry(fd, path, status)
        if path == b".":
            return entry._replace(mtime=0)  # each name that is made changes it, and each layer makes some
        if _seconds(status) > self._epoch and below is not None and stat.S_ISDIR(below.status.st_mode):
            return entry._replace(mtime=self._mtime(below.status))
        return entry

    def _root_below(self, below: Seen | None) -> Entry | None:
        before = self._entry_below(below, b".")
        return _ROOT if below is None else before and before._replace(mtime=0)

    def _contents(self, directory: _Directory) -> Iterator[tuple[bytes, os.stat_result | None]]:
        names = [one for one in os.listdir(directory.fd) if directory.path_of(os.fsencode(one)) not in self._without]
        found = {name: os.stat(name, dir_fd=directory.fd, follow_symlinks=False) for name in names}
        marked = has_marked_whiteouts(directory.fd)
        gone = {name for name, status in found.items() if _is_whiteout(directory.fd, name, status, marked=marked)}
        kept = sorted((os.fsencode(name), status) for name, status in found.items() if name not in gone)
        if directory.replaced:
            gone.update(name for lower in directory.lowers for name in os.listdir(lower) if name not in found)
        if self._lowers is not None:
            gone = {name for name in gone if look_up(directory.lowers, name)}
        yield from ((name, None) for name in sorted(map(os.fsencode, gone)))
        yield from kept

    # All else

    def _file(self, fd: int, below: Seen | None) -> Iterator[Member]:
        status = os.fstat(fd)
        entry = self._open_entry(fd, self.at, status)
        if _may_be_same(status, below) and entry == self._entry_below(below, self.at) and _is_same_file(fd, below):
            return
        yield from self._needed(Member(self._linked_entry(entry, status), fd))

    def _node(
        self, place: Place, status: os.stat_result, owners: dict[bytes, tuple[int, int]], below: Seen | None
    ) -> Iterator[Member]:
        target = os.fsencode(os.readlink(place.name, dir_fd=place.directory)) if stat.S_ISLNK(status.st_mode) else b""
        entry = self._node_entry(self.at, status, target, owners.get(os.fsencode(place.name)))
        if _may_be_same(status, below) and entry == self._entry_below(below, self.at):
            return
        yield from self._needed(Member(self._linked_entry(entry, status)))

    def _linked_entry(self, entry: Entry, status: os.stat_result) -> Entry:
        """Return a hard link's entry where the file has had one under another name."""
        if status.st_nlink == 1:
            return entry
        first = self._linked.setdefault((status.st_dev, status.st_ino), entry.name)
        if first == entry.name:
            return entry
        return entry._replace(kind=HARD_LINK, size=0, link=first, device=(0, 0), attributes=())

    def _entry_below(self, below: Seen | None, path: bytes) -> Entry | None:
        """Return what would be the entry of what the lower directories show, if it can be read."""
        if below is None:
            return None
        try:
            return self._read_below(below, path)
        except (PermissionError, ValueError):  # closed, or of an owner who is none here: it cannot be the same
            return None

    def _read_below(self, below: Seen, path: bytes) -> Entry:
        status, place = below.status, Place(_HERE, below.place)
        if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
            with closing((open_directory if stat.S_ISDIR(status.st_mode) else open_regular)(place)) as fd:
                return self._open_entry(fd, path, status)
        target = os.fsencode(os.readlink(below.place)) if stat.S_ISLNK(status.st_mode) else b""
        above, name = os.path.split(below.place)
        with closing(open_directory(Place(_HERE, above))) as fd:
            return self._node_entry(path, status, target, owners_in(fd).get(os.fsencode(name)))

    # Entries

    def _open_entry(self, fd: int, path: bytes, status: os.stat_result) -> Entry:
        attributes, override = attributes_of(fd, self._identities)
        uid, gid = self._identities.inside(status.st_uid, status.st_gid)
        if override is not None and (uid, gid) == (0, 0):  # else it was given to somebody since
            uid, gid = override.uid, override.gid
        is_file = stat.S_ISREG(status.st_mode)
        if override is not None and override.kind and is_file and status.st_size == 0:
            device = (os.major(override.device), os.minor(override.device))
            mtime = self._mtime(status)
            return Entry(path, _KINDS[override.kind], override.mode, uid, gid, mtime=mtime, device=device)
        size = status.st_size if is_file else 0
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        mode = stat.S_IMODE(status.st_mode)
        return Entry(path, kind, mode, uid, gid, size, self._mtime(status), attributes=attributes)

    def _node_entry(self, path: bytes, status: os.stat_result, link: bytes, owner: tuple[int, int] | None) -> Entry:
        uid, gid = self._identities.inside(status.st_uid, status.st_gid)
        if owner is not None and (uid, gid) == (0, 0):
            uid, gid = owner
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        is_device = kind in (CHARACTER, BLOCK_DEVICE)
        device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0)
        mode = stat.S_IMODE(status.st_mode)
        return Entry(path, kind, mode, uid, gid, mtime=self._mtime(status), link=link, device=device)

    def _mtime(self, status: os.stat_result) -> int:
        return min(_seconds(status), self._epoch)


def _seconds(status: os.stat_result) -> int:
    return status.st_mtime_ns // 10**9


def _is_whiteout(directory: int, name: str, status: os.stat_result, *, marked: bool) -> bool:
    if is_whiteout(status):
        return True
    if not marked or not stat.S_ISREG(status.st_mode) or status.st_size:
        return False
    with closing(open_regular(Place(directory, name))) as fd:
        return has_whiteout_mark(fd)


def _may_be_same(status: os.stat_result, below: Seen | None) -> bool:
    if below is None or below.status.st_mtime_ns != status.st_mtime_ns:
        return False
    # A copy of one of a file's names is a file of its own from then on.
    return status.st_nlink == below.status.st_nlink == 1


def _is_same_file(fd: int, below: Seen | None) -> bool:
    """Whether the file below, whose entry is the same, has the same content, too."""
    assert below is not None
    with closing(open_regular(Place(_HERE, below.place))) as theirs:
        at = 0
        while chunk := os.pread(fd, _CHUNK, at):
            if chunk != os.pread(theirs, _CHUNK, at):
                return False
            at += len(chunk)
        return not os.pread(theirs, 1, at)
