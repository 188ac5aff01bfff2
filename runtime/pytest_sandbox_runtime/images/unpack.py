"""PYTEST_DONT_REWRITE. A root file system's tar, written below a directory: every name in it is taken for hostile.

Names stay the bytes they are in the archive, whatever the locale. What the archive does not say (a directory that is
only a part of names, the root itself) is 0755, root's and of 1970, so that an archive always makes the same tree.
An ordinary user owns all files of the tree, and does without device nodes and file capabilities.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import tarfile
import zlib
from collections import namedtuple
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any, cast

from pytest_sandbox_runtime.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    Parts = tuple[bytes, ...]

MAX_BYTES = 64 << 30
_CHUNK = 1 << 20
# tarfile reads long names and extended headers whole, and believes the size that they claim.
_MAX_HEADER = 1 << 20
_MAX_OPEN = 256
_MAX_LINKS = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COMMON = (b"0", b"1", b"2", b"5")
_XATTR = "SCHILY.xattr."
_KINDS = "a root file system is a tar, plain or packed by gzip, bzip2 or xz"
_AGAIN = "it may have been cut short or damaged on its way: fetch or make it again"
_HOSTILE = "use an archive whose members all stay in it"
_BAD_STREAM = (OSError, EOFError, zlib.error, lzma.LZMAError)
# The rest is what tarfile lets through on some damaged headers, depending on its version.
_BAD_HEADER = (tarfile.TarError, ValueError, IndexError, KeyError, OverflowError, RecursionError)


def unpack(source: str | os.PathLike[str] | IO[bytes], target: str, *, max_bytes: int = MAX_BYTES) -> None:
    """Write the root file system in the tar ``source``, a path or a stream, below the empty directory ``target``.

    ``max_bytes`` is how much may come out of the archive. Raises ImageError, and then leaves what was written.
    """
    with ExitStack() as undo:
        archive = undo.enter_context(_Archive(source, max_bytes))
        tree = undo.enter_context(_Tree(target))
        for member in archive.members():
            with _Blame(archive.name, f"cannot write member {member.name!r}"):
                tree.place(member, archive)
        with _Blame(archive.name, "cannot set the directories' modes and times"):
            tree.finish()


class _Refused(Exception):  # noqa: N818 - becomes an ImageError as soon as the archive's name is known
    """Why a member is not written."""


class _Blame:
    """Turns what goes wrong with a member into an ImageError that names it and its archive."""

    def __init__(self, archive: str, task: str) -> None:
        self._archive = archive
        self._task = task

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        task = f"{self._archive}: {self._task}"
        if isinstance(error, _Refused):
            raise ImageError(f"{task}: {error}", hint=_HOSTILE) from error
        if isinstance(error, OSError):
            raise ImageError(f"{task}: {error.strerror}", hint=_hint_for(error)) from error
        if isinstance(error, (ValueError, OverflowError)):
            raise ImageError(f"{task}: {error}", hint=_AGAIN) from error


def _hint_for(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, or put the store elsewhere with PYTEST_SANDBOX_HOME"
    if error.errno == errno.ENOTSUP:
        return "the store needs a file system with extended attributes: put it elsewhere with PYTEST_SANDBOX_HOME"
    return "check that the store can be written and that the archive's names and numbers are possible ones"


class _Header(tarfile.TarInfo):
    """A header; the common kinds are parsed here, in a quarter of the time that tarfile takes, the rest by tarfile."""

    __slots__ = ()

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse one block."""
        if len(buf) != tarfile.BLOCKSIZE or buf[156:157] not in _COMMON or buf[345] or not _is_sound(buf):
            return super().frombuf(buf, encoding, errors)
        header = cls(_text(buf[:100]))
        header.mode, header.uid, header.gid = _octal(buf[100:108]), _octal(buf[108:116]), _octal(buf[116:124])
        header.size, header.mtime = _octal(buf[124:136]), _octal(buf[136:148])
        header.type = bytes(buf[156:157])
        header.linkname = _text(buf[157:257])
        if header.isdir():
            header.name = header.name.rstrip("/")
        return header


def _is_sound(buf: bytes | bytearray) -> bool:
    # No number larger than octal digits can say: those begin with a set bit.
    if max(buf[100:156:4]) & 0x80:
        return False
    try:
        return _octal(buf[148:156]) == sum(buf) - sum(buf[148:156]) + 8 * 0x20
    except ValueError:
        return False


def _octal(field: bytes | bytearray) -> int:
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def _text(field: bytes | bytearray) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


class _Archive:
    """A tar that is read once, forwards. To tarfile it is the file; it gives headers, and between them data."""

    def __init__(self, source: str | os.PathLike[str] | IO[bytes], max_bytes: int) -> None:
        self._undo = ExitStack()
        self._left = self._max_bytes = max_bytes
        self._position = 0
        self._header = b""
        if isinstance(source, (str, os.PathLike)):
            self.name = os.fspath(source)
            self._stream = self._open(self.name)
        else:
            self.name = str(getattr(source, "name", "the archive"))
            self._stream = self._unpacked(self._buffered(source))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._undo.close()

    def _open(self, path: str) -> IO[bytes]:
        try:
            return self._unpacked(self._buffered(self._undo.enter_context(open(path, "rb", buffering=0))))
        except OSError as error:
            hint = "check the path and that you may read it"
            raise ImageError(f"cannot read the archive {path}: {error.strerror}", hint=hint) from error

    def _buffered(self, source: Any) -> io.BufferedReader:
        buffered: io.BufferedReader = io.BufferedReader(source, _CHUNK)
        # Without this the caller's stream is closed when the buffer is collected.
        self._undo.callback(buffered.detach)
        return buffered

    def _unpacked(self, packed: io.BufferedReader) -> IO[bytes]:
        magic = packed.peek(6)
        if magic.startswith(b"\x1f\x8b"):
            return cast("IO[bytes]", self._undo.enter_context(gzip.GzipFile(fileobj=packed)))
        if magic.startswith(b"BZh"):
            return cast("IO[bytes]", self._undo.enter_context(bz2.BZ2File(packed)))
        if magic.startswith(b"\xfd7zXZ\0"):
            return cast("IO[bytes]", self._undo.enter_context(lzma.LZMAFile(packed)))
        if magic.startswith(b"\x28\xb5\x2f\xfd"):
            raise ImageError(
                f"{self.name} is packed by zstd, which is not read yet", hint=f"unpack it with unzstd; {_KINDS}"
            )
        return packed

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Yield each header; what is left unread of a member's data when the next is asked for is skipped."""
        tar = self._parse(self._open_tar)
        is_empty = tar.firstmember is None  # and asked for more, tarfile of Python 3.10 seeks to byte -1
        while not is_empty and (member := self._parse(tar.next)) is not None:
            tar.members.clear()  # it collects every header, and some archives have a million
            yield member
            self._skip_to(tar.offset)
        self._check_end()

    def _open_tar(self) -> tarfile.TarFile:
        stream = cast("IO[bytes]", self)  # reads and tells, and mode "r" wants no more
        return tarfile.TarFile(fileobj=stream, tarinfo=_Header, encoding="utf-8", errors="surrogateescape")

    def _parse(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except _BAD_HEADER as error:
            if self._position <= tarfile.BLOCKSIZE:
                raise ImageError(f"{self.name} is no tar: {error}", hint=_KINDS) from error
            raise self._damaged(f"{error} before byte {self._position}") from error

    def _check_end(self) -> None:
        # tarfile takes the first block that is no header for the end, and a cut between two members as well.
        if len(self._header) < tarfile.BLOCKSIZE:
            raise self._damaged("it ends without the two empty blocks that close a tar")
        if any(self._header):
            raise self._damaged(f"there is no header before byte {self._position}")
        while self._take(_CHUNK):
            pass  # a packed stream has its checksum at the end

    def _damaged(self, reason: str) -> ImageError:
        return ImageError(f"{self.name} is truncated or corrupt: {reason}", hint=_AGAIN)

    def read(self, size: int) -> bytes:
        """Return what a header is made of."""
        if not 0 <= size <= _MAX_HEADER:
            raise self._damaged(f"a header of {size} bytes at byte {self._position}")
        self._header = self._take(size)
        return self._header

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._position

    def seek(self, position: int) -> None:
        """Refuse: tarfile seeks only where a header gives an impossible size."""
        raise self._damaged(f"a member of impossible size at byte {position}")

    def copy_to(self, fd: int, size: int) -> None:
        """Append the next ``size`` bytes to ``fd``."""
        while size > 0:
            data = self._take(min(size, _CHUNK))
            if not data:
                raise self._damaged(f"it ends within a member's data, {size} bytes early")
            size -= len(data)
            _write(fd, data)

    def _skip_to(self, position: int) -> None:
        if position < self._position:
            raise self._damaged(f"a member of impossible size before byte {self._position}")
        while position > self._position:
            if not self._take(min(position - self._position, _CHUNK)):
                raise self._damaged(f"it ends {position - self._position} bytes before the end of a member")

    def _take(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except _BAD_STREAM as error:
            raise self._damaged(f"{error} after byte {self._position}") from error
        self._position += len(data)
        self._left -= len(data)
        if self._left < 0:
            hint = "if it is no trap, unpack it by hand and give the directory"
            raise ImageError(f"{self.name} holds more than the {self._max_bytes} bytes that it may", hint=hint)
        return data


def _write(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        data = data[written:]
        written = os.write(fd, data)


_Place = namedtuple("_Place", "directory fd name")
_Status = namedtuple("_Status", "mode uid gid mtime_ns attributes")
_IMPLIED = _Status(0o755, 0, 0, 0, ())


def _status(member: tarfile.TarInfo) -> _Status:
    return _Status(member.mode & 0o7777, member.uid, member.gid, _mtime_ns(member), _attributes(member))


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
        if key.startswith(_XATTR) and _is_kept(key[len(_XATTR) :])
    )


def _is_kept(attribute: str) -> bool:
    # user.overlay.* are orders to overlayfs(5): whiteouts and redirects that a tree of one layer cannot need.
    return attribute == "security.capability" or (
        attribute.startswith("user.") and not attribute.startswith("user.overlay.")
    )


def _parts(name: str) -> Parts:
    if name.startswith("/"):
        raise _Refused(f"{name!r} is absolute")
    parts = tuple(part for part in name.encode("utf-8", "surrogateescape").split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise _Refused(f"{name!r} has .. in it")
    return parts


class _Tree:
    """The directory that is written below, by descriptors only: no name of more than one part reaches the kernel."""

    def __init__(self, target: str) -> None:
        # Holds with each directory all those above it, none a symbolic link.
        self._fds: dict[Parts, int] = {(): os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)}
        self._later: dict[Parts, _Status] = {(): _IMPLIED}
        self._omitted: set[Parts] = set()
        self._is_root = os.geteuid() == 0

    def __enter__(self) -> Self:
        if os.listdir(self._fds[()]):
            self.__exit__()
            raise ImageError("cannot unpack an archive into a directory that has files")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._forget()
        os.close(self._fds.pop(()))

    def place(self, member: tarfile.TarInfo, archive: _Archive) -> None:
        """Write ``member``, in place of what an earlier one of its name left; ``archive`` is where its data begins."""
        parts = _parts(member.name)
        if not parts:
            self._place_root(member)
            return
        directory = self._locate(parts[:-1])
        place = _Place(directory, self._fds[directory], parts[-1])
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
            raise _Refused("it would replace the root directory")
        self._later[()] = _status(member)

    def _write_file(self, place: _Place, member: tarfile.TarInfo, archive: _Archive) -> None:
        fd = self._make(place, lambda: os.open(place.name, _NEW_FILE, 0o600, dir_fd=place.fd))
        try:
            if member.sparse is None:
                archive.copy_to(fd, member.size)
            else:
                _write_sparse(fd, cast("list[tuple[int, int]]", member.sparse), member.size, archive)
            self._dress(fd, _status(member))
        finally:
            os.close(fd)

    def _make_directory(self, place: _Place, member: tarfile.TarInfo) -> None:
        status = _status(member)
        path = (*place.directory, place.name)
        if not _is_directory(place):
            self._make(place, lambda: os.mkdir(place.name, 0o700, dir_fd=place.fd))
        # Not before all is in it: a mode may forbid writing, and each new name changes the time.
        self._later[path] = status

    def _link(self, place: _Place, member: tarfile.TarInfo) -> None:
        parts = _parts(member.linkname)
        if parts in self._omitted:
            return
        if not parts:
            raise _Refused("a hard link to the root directory")
        source = self._fds[self._locate(parts[:-1], create=False)]
        if (*place.directory, place.name) == parts:
            raise _Refused("a hard link to itself")
        try:
            self._make(place, lambda: _link(parts[-1], source, place))
        except FileNotFoundError as error:
            raise _Refused(f"its target {member.linkname!r} does not come before it") from error

    def _make_node(self, place: _Place, member: tarfile.TarInfo) -> None:
        if member.issym():
            target = member.linkname.encode("utf-8", "surrogateescape")
            self._make(place, lambda: os.symlink(target, place.name, dir_fd=place.fd))
        elif member.isfifo():
            self._make(place, lambda: os.mkfifo(place.name, 0o600, dir_fd=place.fd))
        elif not member.isdev():
            raise _Refused(f"its type is {member.type!r}, which no root file system has")
        elif not self._make_device(place, member):
            self._omitted.add((*place.directory, place.name))
            return
        self._dress_by_name(place, member)

    def _make_device(self, place: _Place, member: tarfile.TarInfo) -> bool:
        if not self._is_root:
            return False
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        device = os.makedev(member.devmajor, member.devminor)
        try:
            self._make(place, lambda: os.mknod(place.name, kind | 0o600, device, dir_fd=place.fd))
        except PermissionError:
            return False  # root of a container, without CAP_MKNOD
        return True

    def _make(self, place: _Place, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except FileExistsError:
            self._remove(place)
            return make()

    def _remove(self, place: _Place) -> None:
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
            if not create:
                raise
            os.mkdir(part, 0o700, dir_fd=self._fds[at])
            path = (*at, part)
            self._later[path] = _IMPLIED
            return os.open(part, _DIRECTORY, dir_fd=self._fds[at])

    def _follow(self, at: Parts, part: bytes, links: int, *, create: bool) -> Parts:
        path = os.fsdecode(b"/".join((*at, part)))
        try:
            target = os.readlink(part, dir_fd=self._fds[at])
        except OSError as error:
            raise _Refused(f"it lies below {path!r}, which is no directory") from error
        if target.startswith(b"/") or links == 0:
            raise _Refused(f"it lies behind the symbolic link {path!r}, which leads out")
        for step in target.split(b"/"):
            at = self._step(at, step, links - 1, create=create)
        return at

    def _above(self, at: Parts) -> Parts:
        if not at:
            raise _Refused("it lies behind a symbolic link that leads out")
        return at[:-1]

    def _forget(self) -> None:
        for path in [path for path in self._fds if path]:
            os.close(self._fds.pop(path))

    def _dress(self, fd: int, status: _Status) -> None:
        # In this order: chown(2) takes away set-user-ID and capabilities, and each call but the last changes times.
        if self._is_root:
            os.fchown(fd, status.uid, status.gid)
        os.fchmod(fd, status.mode)
        for name, value in status.attributes:
            self._set_attribute(fd, name, value)
        os.utime(fd, ns=(status.mtime_ns, status.mtime_ns))

    def _set_attribute(self, fd: int, name: str, value: bytes) -> None:
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if self._is_root or error.errno not in (errno.EPERM, errno.ENOTSUP):
                raise

    def _dress_by_name(self, place: _Place, member: tarfile.TarInfo) -> None:
        status = _status(member)
        if self._is_root:
            os.chown(place.name, status.uid, status.gid, dir_fd=place.fd, follow_symlinks=False)
        if not member.issym():
            os.chmod(place.name, status.mode, dir_fd=place.fd)
        os.utime(place.name, ns=(status.mtime_ns, status.mtime_ns), dir_fd=place.fd, follow_symlinks=False)

    def finish(self) -> None:
        """Give the directories their modes and times, the deepest first: the modes may close the way to them."""
        for path in sorted(self._later, reverse=True):
            self._dress(self._fds[self._locate(path)], self._later[path])


def _is_directory(place: _Place) -> bool:
    try:
        return stat.S_ISDIR(os.stat(place.name, dir_fd=place.fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _link(name: bytes, source: int, place: _Place) -> None:
    os.link(name, place.name, src_dir_fd=source, dst_dir_fd=place.fd, follow_symlinks=False)


def _write_sparse(fd: int, data: list[tuple[int, int]], size: int, archive: _Archive) -> None:
    end = 0
    for offset, length in data:
        if offset < end or length < 0 or offset + length > size:
            raise _Refused("its map of holes is impossible")
        os.lseek(fd, offset, os.SEEK_SET)
        archive.copy_to(fd, length)
        end = offset + length
    os.ftruncate(fd, size)
