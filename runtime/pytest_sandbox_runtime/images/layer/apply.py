"""PYTEST_DONT_REWRITE. An OCI layer's tar, written below a directory that overlayfs can have as a lower one.

A whiteout hides what lower layers have, and never what its own layer has, wherever in the tar it comes. overlayfs
lists the whiteouts in directories that nothing is merged with, so one that hides nothing is not made. A directory that
is only a part of names looks as it does in the next layer below: in an overlay the upper one's mode and owner count.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, NamedTuple

from pytest_sandbox_runtime.images.attributes import (
    CAPABILITY,
    KEPT_CAPABILITY,
    OVERRIDE,
    OWNERS,
    Identities,
    attributes_of,
    format_override,
    format_owners,
)
from pytest_sandbox_runtime.images.limits import Limits
from pytest_sandbox_runtime.images.members import Archive, Refused
from pytest_sandbox_runtime.images.tree import IMPLIED, Place, Status, Tree, device_of, parts_of, status_of
from pytest_sandbox_runtime.lowers import look_up
from pytest_sandbox_runtime.trees import closing

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Sequence

    from pytest_sandbox_runtime.images.tree import Parts
    from pytest_sandbox_runtime.lowers import Seen

_WHITEOUT = b".wh."
_RESERVED = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
# What chown(2) says to ids that are not mapped, and to who may not.
_NOT_GIVEN = (errno.EINVAL, errno.EPERM)
# What a directory's attributes cannot hold: a few KiB on most file systems.
_TOO_MUCH = (errno.ENOSPC, errno.E2BIG, errno.ERANGE)
_LIMITS = Limits()


class AppliedLayer(NamedTuple):
    """What was written. ``diff_id`` is the digest of the unpacked tar, ``size`` its bytes.

    ``stands_alone`` where the layer would have been written so whatever is below it. ``owners_lost`` counts what has an
    owner that could be set nowhere.
    """

    diff_id: str
    size: int
    stands_alone: bool
    owners_lost: int


def apply_layer(
    source: str | os.PathLike[str] | IO[bytes],
    target: str,
    *,
    lowers: Sequence[str] = (),
    user_namespace: bool = False,
    max_bytes: int = _LIMITS.max_bytes,
    max_ratio: int = _LIMITS.max_ratio,
    name: str | None = None,
) -> AppliedLayer:
    """Write the layer in the tar ``source`` below the empty directory ``target``, as a lower one over ``lowers``.

    ``lowers`` are the layers below, the next one first; ``user_namespace`` is whether the overlay will be mounted with
    userxattr, ``name`` what errors call the source. Raises ImageError, and then leaves what was written.
    """
    digest = hashlib.sha256()
    with ExitStack() as undo:
        archive = undo.enter_context(Archive(source, Limits(max_bytes, max_ratio), digest, name))
        tree = undo.enter_context(LayerTree(target, lowers, user_namespace=user_namespace))
        tree.fill(archive)
        return AppliedLayer(f"sha256:{digest.hexdigest()}", archive.position, tree.stands_alone, tree.owners_lost)


class LayerTree(Tree):
    """The directory of one layer, over those of ``lowers``."""

    def __init__(self, target: str, lowers: Sequence[str], *, user_namespace: bool) -> None:
        super().__init__(target)
        self.stands_alone = True
        self.owners_lost = 0
        self._opaque = f"{'user' if user_namespace else 'trusted'}.overlay.opaque"
        self._merged: dict[Parts, tuple[str, ...]] = {(): tuple(lowers)}
        self._whiteouts: set[Parts] = set()
        self._cleared: set[Parts] = set()
        self._made_opaque: set[Parts] = set()
        self._owners: dict[Parts, dict[bytes, tuple[int, int]]] = {}
        if lowers:
            self._later[()] = self._of_root(lowers[0])

    def _of_root(self, lower: str) -> Status:
        status = _status_below(lower)._replace(mtime_ns=0)
        self.stands_alone = status == IMPLIED
        return status

    # Whiteouts

    def place(self, member: tarfile.TarInfo, archive: Archive) -> None:
        if _WHITEOUT.decode() not in member.name:
            super().place(member, archive)
            return
        parts = parts_of(member.name)
        if parts and parts[-1] == _OPAQUE:
            self._cleared.add(parts[:-1])
        elif any(part.startswith(_RESERVED) for part in parts):
            return  # aufs kept things of its own there
        elif any(part.startswith(_WHITEOUT) for part in parts[:-1]):
            raise Refused("it lies in a whiteout")
        elif parts and parts[-1].startswith(_WHITEOUT):
            self._whiteouts.add((*parts[:-1], _hidden_name(parts[-1])))
        else:
            super().place(member, archive)

    def finish(self) -> None:
        """Hide what whiteouts and opaque directories hide, and give the directories their modes and times."""
        self.stands_alone = self.stands_alone and not self._whiteouts and not self._cleared
        for path in sorted(self._cleared, key=len):
            self._clear(path)
        for path in sorted(self._whiteouts, key=len):
            self._white_out(path)
        for path, owners in self._owners.items():
            self._record_owners(path, owners)
        super().finish()

    def _clear(self, path: Parts) -> None:
        if not path:
            # overlayfs looks for no mark on the root of a layer.
            self._whiteouts.update((os.fsencode(name),) for lower in self._merged[()] for name in os.listdir(lower))
            return
        found = self._find_directory(path)
        if found:
            self._make_opaque(found)

    def _white_out(self, path: Parts) -> None:
        parent = self._find_directory(path[:-1])
        if parent is None or self._below((*parent, path[-1])) is None:
            return
        place = Place(parent, self._fds[parent], path[-1])
        try:
            status = os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)
        except FileNotFoundError:
            os.mknod(place.name, stat.S_IFCHR, 0, dir_fd=place.fd)  # which any user may, from Linux 5.8 on
            return
        if stat.S_ISDIR(status.st_mode):
            self._make_opaque((*parent, path[-1]))

    def _make_opaque(self, path: Parts) -> None:
        os.setxattr(self._fds[self._locate(path)], self._opaque, b"y")
        self._made_opaque.add(path)

    def _find_directory(self, path: Parts) -> Parts | None:
        """Return where a directory is that is in this layer or in those below, made here if need be; None for none."""
        at: Parts = ()
        for count in range(1, len(path) + 1):
            try:
                at = self._locate(path[:count], create=False)
            except FileNotFoundError:
                below = self._below((*at, path[count - 1]))
                if below is None or not stat.S_ISDIR(below.status.st_mode):
                    return None
                at = self._locate(path[:count])
            except Refused:
                return None  # it lies below a file, and nothing is seen there
        self._locate(at)
        return at

    # What is below

    def _below(self, path: Parts) -> Seen | None:
        """Return what the lower layers show at ``path``, which is in a directory of this layer."""
        above = path[:-1]
        if any(above[:count] in self._made_opaque for count in range(1, len(path))):
            return None
        return look_up(self._merged_at(above), os.fsdecode(path[-1]))

    def _merged_at(self, path: Parts) -> tuple[str, ...]:
        merged = self._merged.get(path)
        if merged is None:
            seen = look_up(self._merged_at(path[:-1]), os.fsdecode(path[-1]))
            merged = self._merged[path] = seen.merged if seen else ()
        return merged

    def _imply(self, path: Parts) -> Status:
        self.stands_alone = False
        below = self._below(path)
        if below is None or not stat.S_ISDIR(below.status.st_mode):
            return IMPLIED
        return _status_below(below.place)

    def _check_absent(self, path: Parts) -> None:
        below = self._below(path)
        if below is not None and stat.S_ISLNK(below.status.st_mode):
            raise NotADirectoryError

    def _read_link(self, path: Parts) -> bytes:
        try:
            return super()._read_link(path)
        except FileNotFoundError:
            below = self._below(path)
            if below is None:
                raise
            self.stands_alone = False
            return os.fsencode(os.readlink(below.place))

    # What cannot be set

    def _own(self, fd: int, status: Status) -> None:
        if not self._give(fd, status):
            kind = stat.S_IFMT(os.fstat(fd).st_mode)
            os.setxattr(fd, OVERRIDE, format_override(status.uid, status.gid, kind | status.mode))

    def _give(self, fd: int, status: Status) -> bool:
        """Set the owner; an ordinary user is root inside, and can be nobody else."""
        if not self._is_root:
            return (status.uid, status.gid) == (0, 0)
        try:
            os.fchown(fd, status.uid, status.gid)
        except OSError as error:
            if error.errno not in _NOT_GIVEN:
                raise
            return False
        return True

    def _own_by_name(self, place: Place, status: Status) -> None:
        owners = self._owners.setdefault(place.directory, {})
        owners.pop(place.name, None)
        if not self._give_by_name(place, status):
            owners[place.name] = (status.uid, status.gid)

    def _give_by_name(self, place: Place, status: Status) -> bool:
        if not self._is_root:
            return (status.uid, status.gid) == (0, 0)
        try:
            os.chown(place.name, status.uid, status.gid, dir_fd=place.fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NOT_GIVEN:
                raise
            return False
        return True

    def _remove(self, place: Place) -> None:
        super()._remove(place)
        self._owners.pop((*place.directory, place.name), None)

    def _record_owners(self, path: Parts, owners: dict[bytes, tuple[int, int]]) -> None:
        if not owners:
            return
        try:
            os.setxattr(self._fds[self._locate(path)], OWNERS, format_owners(owners))
        except OSError as error:
            if error.errno not in _TOO_MUCH:
                raise
            self.owners_lost += len(owners)

    def _set_attribute(self, fd: int, name: str, value: bytes) -> None:
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if name != CAPABILITY or error.errno != errno.EPERM:
                raise
            os.setxattr(fd, KEPT_CAPABILITY, value)

    def _replace_device(self, place: Place, member: tarfile.TarInfo) -> None:
        status = status_of(member)
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        said = format_override(status.uid, status.gid, kind | status.mode, device_of(member))
        with closing(self._create(place)) as fd:
            os.setxattr(fd, OVERRIDE, said)
            os.fchmod(fd, 0o400)  # nobody is to write into what should have been a device
            os.utime(fd, ns=(status.mtime_ns, status.mtime_ns))


def _hidden_name(whiteout: bytes) -> bytes:
    name = whiteout[len(_WHITEOUT) :]
    if name in (b"", b".", b".."):
        raise Refused("it is a whiteout of no name")
    return name


def _status_below(path: str) -> Status:
    """Return what a lower directory is like."""
    with closing(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
        status = os.fstat(fd)
        attributes, override = attributes_of(fd, Identities())
        uid, gid = (status.st_uid, status.st_gid) if os.geteuid() == 0 else (0, 0)
        if override is not None:
            uid, gid = override.uid, override.gid
        return Status(stat.S_IMODE(status.st_mode), uid, gid, status.st_mtime_ns, attributes)
