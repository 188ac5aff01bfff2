"""PYTEST_DONT_REWRITE. A tree written from an archive's members, each name in it taken for hostile."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections import namedtuple
from typing import TYPE_CHECKING, Any, cast

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.attributes import is_kept
from pytest_sandbox_runtime.images.members import WRONG, Refused, blame

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable

    from typing_extensions import Self

    from pytest_sandbox_runtime.images.members import Archive

    Parts = tuple[bytes, ...]

_MAX_OPEN = 256
_MAX_LINKS = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_XATTR = "SCHILY.xattr."
Place = namedtuple("Place", "directory fd name")
Status = namedtuple("Status", "mode uid gid mtime_ns attributes")
IMPLIED = Status(0o755, 0, 0, 0, ())


def status_of(member: tarfile.TarInfo) -> Status:
    if not member.pax_headers:
        return Status(member.mode & 0o7777, member.uid, member.gid, int(member.mtime) * 10**9, ())
    return Status(member.mode & 0o7777, member.uid, member.gid, _mtime_ns(member), _attributes(member))


def _mtime_ns(member: tarfile.TarInfo) -> int:
    text = member.pax_headers.get("mtime")
    if text is None:
        return int(member.mtime) * 10**9
    # tarfile's float holds microseconds only.
    whole, _, fraction = text.partition(".")
    nanoseconds = int(fraction[:9].ljust(9, "0"))
    return int(whole or 0) * 10**9 + (-nanoseconds if text.startswith("-") else nanoseconds)


def _attributes(member: tarfile.TarInfo) -> tuple[tuple[str, bytes], ...]:
    return tuple(
        (key[len(_XATTR) :], value.encode("utf-8", "surrogateescape"))
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR) and is_kept(key[len(_XATTR) :])
    )


def parts_of(name: str) -> Parts:
    if name.startswith("/"):
        raise Refused(f"{name!r} is absolute")
    parts = tuple(name.encode("utf-8", "surrogateescape").split(b"/"))
    if b"" in parts or b"." in parts:
        parts = tuple(part for part in parts if part not in (b"", b"."))
    if b".." in parts:
        raise Refused(f"{name!r} has .. in it")
    return parts


class Tree(ABC):
    """The directory that is written below, by descriptors only: no name of more than one part reaches the kernel.

    What a layer's members mean over those below it, and what is done where something cannot be set, is LayerTree's.
    """

    def __init__(self, target: str) -> None:
        # Holds with each directory all those above it, none a symbolic link.
        self._fds: dict[Parts, int] = {(): os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)}
        self._later: dict[Parts, Status] = {(): IMPLIED}
        self._is_root = os.geteuid() == 0

    def __enter__(self) -> Self:
        if os.listdir(self._fds[()]):
            self.__exit__()
            raise ImageError("cannot unpack an archive into a directory that has files")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._forget()
        os.close(self._fds.pop(()))

    def fill(self, archive: Archive) -> None:
        """Write all members of ``archive``; raises ImageError, which names the member."""
        member = None
        try:
            for member in archive.members():
                self.place(member, archive)
            member = None
            self.finish()
        except WRONG as error:
            task = f"cannot write member {member.name!r}" if member else "cannot finish the tree"
            raise blame(archive.name, task, error) from error

    def place(self, member: tarfile.TarInfo, archive: Archive) -> None:
        """Write ``member``, in place of what an earlier one of its name left; ``archive`` is where its data begins."""
        parts = parts_of(member.name)
        if not parts:
            self._place_root(member)
            return
        directory = self._locate(parts[:-1])
        place = Place(directory, self._fds[directory], parts[-1])
        if member.isreg():
            self._write_file(place, member, archive)
        elif member.isdir():
            self._make_directory(place, member)
        elif member.islnk():
            self._link(place, member)
        else:
            self._make_node(place, member)

    def _place_root(self, member: tarfile.TarInfo) -> None:
        if not member.isdir():
            raise Refused("it would replace the root directory")
        self._later[()] = status_of(member)

    def _write_file(self, place: Place, member: tarfile.TarInfo, archive: Archive) -> None:
        fd = self._create(place)
        try:
            if member.sparse is None:
                archive.copy_to(fd, member.size)
            else:
                _write_sparse(fd, cast("list[tuple[int, int]]", member.sparse), member.size, archive)
            self._dress(fd, status_of(member))
        finally:
            os.close(fd)

    def _create(self, place: Place) -> int:
        try:
            return os.open(place.name, _NEW_FILE, 0o600, dir_fd=place.fd)
        except FileExistsError:
            self._remove(place)
            return os.open(place.name, _NEW_FILE, 0o600, dir_fd=place.fd)

    def _make_directory(self, place: Place, member: tarfile.TarInfo) -> None:
        status = status_of(member)
        path = (*place.directory, place.name)
        if not _is_directory(place):
            self._make(place, lambda: os.mkdir(place.name, 0o700, dir_fd=place.fd))
        # Not before all is in it: a mode may forbid writing, and each new name changes the time.
        self._later[path] = status

    def _link(self, place: Place, member: tarfile.TarInfo) -> None:
        parts = parts_of(member.linkname)
        if not parts:
            raise Refused("a hard link to the root directory")
        source = self._fds[self._locate(parts[:-1], create=False)]
        if (*place.directory, place.name) == parts:
            raise Refused("a hard link to itself")
        try:
            self._make(place, lambda: _link(parts[-1], source, place))
        except FileNotFoundError as error:
            raise Refused(f"its target {member.linkname!r} does not come before it") from error

    def _make_node(self, place: Place, member: tarfile.TarInfo) -> None:
        if member.issym():
            target = member.linkname.encode("utf-8", "surrogateescape")
            self._make(place, lambda: os.symlink(target, place.name, dir_fd=place.fd))
        elif member.isfifo():
            self._make(place, lambda: os.mkfifo(place.name, 0o600, dir_fd=place.fd))
        elif not member.isdev():
            raise Refused(f"its type is {member.type!r}, which no root file system has")
        elif not self._make_device(place, member):
            self._replace_device(place, member)
            return
        self._dress_by_name(place, member)

    def _make_device(self, place: Place, member: tarfile.TarInfo) -> bool:
        if not self._is_root:
            return False
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        device = device_of(member)
        try:
            self._make(place, lambda: os.mknod(place.name, kind | 0o600, device, dir_fd=place.fd))
        except PermissionError:
            return False  # root of a container, without CAP_MKNOD
        return True

    @abstractmethod
    def _replace_device(self, place: Place, member: tarfile.TarInfo) -> None:
        """Write something in the place of a device that cannot be made."""

    def _make(self, place: Place, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except FileExistsError:
            self._remove(place)
            return make()

    def _remove(self, place: Place) -> None:
        if not _is_directory(place):
            os.unlink(place.name, dir_fd=place.fd)
            return
        os.rmdir(place.name, dir_fd=place.fd)
        path = (*place.directory, place.name)
        self._later.pop(path, None)
        stale = self._fds.pop(path, None)
        if stale is not None:
            os.close(stale)

    def _locate(self, parts: Parts, *, create: bool = True) -> Parts:
        """Return where the directory ``parts`` really is, opened."""
        if parts in self._fds:
            return parts
        if len(self._fds) > _MAX_OPEN:
            self._forget()
        at: Parts = ()
        for part in parts:
            at = self._step(at, part, _MAX_LINKS, create=create)
        return at

    def _step(self, at: Parts, part: bytes, links: int, *, create: bool) -> Parts:
        if part in (b"", b"."):
            return at
        if part == b"..":
            return self._above(at)
        below = (*at, part)
        if below in self._fds:
            return below
        try:
            self._fds[below] = self._open(at, part, create=create)
        except NotADirectoryError:
            return self._follow(at, part, links, create=create)
        return below

    def _open(self, at: Parts, part: bytes, *, create: bool) -> int:
        try:
            return os.open(part, _DIRECTORY, dir_fd=self._fds[at])
        except FileNotFoundError:
            self._check_absent((*at, part))
            if not create:
                raise
            path = (*at, part)
            status = self._imply(path)
            os.mkdir(part, 0o700, dir_fd=self._fds[at])
            self._later[path] = status
            return os.open(part, _DIRECTORY, dir_fd=self._fds[at])

    @abstractmethod
    def _check_absent(self, path: Parts) -> None:
        """Raise NotADirectoryError where what is not in the tree is to be followed nevertheless."""

    @abstractmethod
    def _imply(self, path: Parts) -> Status:
        """Return what a directory is like that is only a part of names."""

    def _read_link(self, path: Parts) -> bytes:
        return os.readlink(path[-1], dir_fd=self._fds[path[:-1]])

    def _follow(self, at: Parts, part: bytes, links: int, *, create: bool) -> Parts:
        path = os.fsdecode(b"/".join((*at, part)))
        try:
            target = self._read_link((*at, part))
        except OSError as error:
            raise Refused(f"it lies below {path!r}, which is no directory") from error
        if target.startswith(b"/") or links == 0:
            raise Refused(f"it lies behind the symbolic link {path!r}, which leads out")
        for step in target.split(b"/"):
            at = self._step(at, step, links - 1, create=create)
        return at

    def _above(self, at: Parts) -> Parts:
        if not at:
            raise Refused("it lies behind a symbolic link that leads out")
        return at[:-1]

    def _forget(self) -> None:
        for path in [path for path in self._fds if path]:
            os.close(self._fds.pop(path))

    def _dress(self, fd: int, status: Status) -> None:
        # In this order: chown(2) takes away set-user-ID and capabilities, to a closed file its owner can set no
        # attributes, and each call but the last changes times.
        self._own(fd, status)
        for name, value in status.attributes:
            self._set_attribute(fd, name, value)
        os.fchmod(fd, status.mode)
        os.utime(fd, ns=(status.mtime_ns, status.mtime_ns))

    @abstractmethod
    def _own(self, fd: int, status: Status) -> None:
        """Set the owner, or note it."""

    @abstractmethod
    def _set_attribute(self, fd: int, name: str, value: bytes) -> None:
        """Set an extended attribute, or note it."""

    def _dress_by_name(self, place: Place, member: tarfile.TarInfo) -> None:
        status = status_of(member)
        self._own_by_name(place, status)
        if not member.issym():
            os.chmod(place.name, status.mode, dir_fd=place.fd)
        os.utime(place.name, ns=(status.mtime_ns, status.mtime_ns), dir_fd=place.fd, follow_symlinks=False)

    @abstractmethod
    def _own_by_name(self, place: Place, status: Status) -> None:
        """Set the owner of what cannot be opened, or note it."""

    def finish(self) -> None:
        """Give the directories their modes and times, the deepest first: the modes may close the way to them."""
        for path in sorted(self._later, reverse=True):
            self._dress(self._fds[self._locate(path)], self._later[path])


def device_of(member: tarfile.TarInfo) -> int:
    """Return the device that ``member`` is a node of, as os.makedev does."""
    return os.makedev(member.devmajor, member.devminor)


def _is_directory(place: Place) -> bool:
    try:
        return stat.S_ISDIR(os.stat(place.name, dir_fd=place.fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _link(name: bytes, source: int, place: Place) -> None:
    os.link(name, place.name, src_dir_fd=source, dst_dir_fd=place.fd, follow_symlinks=False)


def _write_sparse(fd: int, data: list[tuple[int, int]], size: int, archive: Archive) -> None:
    end = 0
    for offset, length in data:
        if offset < end or length < 0 or offset + length > size:
            raise Refused("its map of holes is impossible")
        os.lseek(fd, offset, os.SEEK_SET)
        archive.copy_to(fd, length)
        end = offset + length
    os.ftruncate(fd, size)
