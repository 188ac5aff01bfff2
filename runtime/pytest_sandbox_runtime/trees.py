"""PYTEST_DONT_REWRITE. Copies of files and trees, from one directory's descriptor to another's.

Either side may be changed by a hostile process while it is copied, so nothing here goes by more than one name at a
time, and no symlink is followed on either side.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from pytest_sandbox_runtime.kernel.files import Resolve, openat2

if TYPE_CHECKING:
    from collections.abc import Iterator

PIN = os.O_PATH | os.O_CLOEXEC
DIRECTORY = os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_OLD = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1 << 20
_CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class Place(NamedTuple):
    """A name in the directory behind a descriptor."""

    directory: int
    name: str


def kind_of(status: os.stat_result) -> str:
    """Return what a stat(2) was of, in words: "file", "directory", "symlink", "fifo" and so on."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "unknown")


def split(path: str) -> tuple[str, str]:
    """Return a path's directory and the name in it, which is "." for the whole of a directory ("/", "x/.").

    A name keeps its trailing slash: the kernel takes such a name for nothing but a directory.
    """
    stripped = path.rstrip("/")
    above, slash, name = stripped.rpartition("/")
    if name in ("", ".", ".."):
        return path, "."
    return above + slash or ".", name + path[len(stripped) :][:1]


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """Close ``fd`` at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


def open_directory(place: Place) -> int:
    """Open a directory for listing; ENOTDIR for a symlink to one."""
    return os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW | DIRECTORY, dir_fd=place.directory)


def open_regular(place: Place) -> int:
    """Open a regular file for reading: nothing else, and through no symlink."""
    with closing(_pin(place)) as found:
        return reopen(found, os.O_RDONLY)


def reopen(found: int, flags: int) -> int:
    """Open the regular file behind an O_PATH descriptor; refuse all else, which may act on being opened."""
    status = os.fstat(found)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"it is a {kind_of(status)}, not a file")
    return os.open(_through(found), flags | os.O_CLOEXEC | os.O_NONBLOCK)


def write_all(fd: int, data: memoryview) -> None:
    """Write all of ``data``, which write(2) need not do at once."""
    while data:
        data = data[os.write(fd, data) :]


def copy_data(source: int, target: int) -> None:
    """Copy a file's data into an empty one, from both starts, with its holes, and no more than it has at the start."""
    size = os.fstat(source).st_size
    if not size:
        _copy_unsized(source, target)
        return
    for start, end in _data_ranges(source, size):
        reached = _copy_range(source, target, start, end)
        if reached < end:
            size = reached  # cut while it was copied, or a file of /sys, which is shorter than it says
            break
    os.ftruncate(target, size)


class TreeCopy:
    """One copy of a file or tree.

    ``at`` is the member that it is at, relative to the source, so that an error can name it. ``owner`` is a uid and
    gid for all that is made, ``mode_mask`` what of a mode is kept.
    """

    def __init__(self, owner: tuple[int, int] | None, mode_mask: int) -> None:
        self.at = ""
        self._owner = owner
        self._mode_mask = mode_mask
        self._copied: dict[tuple[int, int], str] = {}

    def run(self, source: Place, target: Place) -> None:
        """Copy ``source`` to ``target``: a file in its way is replaced, a directory is kept as it is and added to."""
        self._target = target
        self._member(source, target, "")

    def _member(self, source: Place, target: Place, at: str) -> None:
        self.at = at
        status = os.stat(source.name, dir_fd=source.directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._directory(source, target, at)
        elif self._is_linked(status, target, at):
            return
        elif stat.S_ISREG(status.st_mode):
            self._file(source, target)
        elif stat.S_ISLNK(status.st_mode):
            self._symlink(source, target, status)
        elif stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
            self._node(target, status)
        else:
            raise OSError(errno.EINVAL, f"it is a {kind_of(status)}")

    def _directory(self, source: Place, target: Place, at: str) -> None:
        with closing(open_directory(source)) as origin:
            is_new = _make_directory(target)
            with closing(open_directory(target)) as copy:
                for name in sorted(os.listdir(origin)):
                    self._member(Place(origin, name), Place(copy, name), os.path.join(at, name))
                if is_new:  # last, as making what is in it changes its mtime, and it may be read-only
                    self._dress(copy, os.fstat(origin))

    def _is_linked(self, status: os.stat_result, target: Place, at: str) -> bool:
        """Make ``target`` a hard link to its file's earlier copy, if there is one."""
        if status.st_nlink < 2:
            return False
        earlier = self._copied.setdefault((status.st_dev, status.st_ino), at)
        return earlier != at and self._link(earlier, target)

    def _link(self, earlier: str, target: Place) -> bool:
        above, name = split(os.path.join(self._target.name, earlier))
        with closing(_open_beneath(self._target.directory, above)) as directory:
            _clear(target)
            try:
                os.link(name, target.name, src_dir_fd=directory, dst_dir_fd=target.directory, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EMLINK):
                    raise
                return False
        return True

    def _file(self, source: Place, target: Place) -> None:
        with closing(open_regular(source)) as origin, closing(_create(target)) as copy:
            copy_data(origin, copy)
            self._dress(copy, os.fstat(origin))

    def _symlink(self, source: Place, target: Place, status: os.stat_result) -> None:
        leads_to = os.readlink(source.name, dir_fd=source.directory)
        _clear(target)
        os.symlink(leads_to, target.name, dir_fd=target.directory)
        with closing(_pin(target)) as copy:
            self._dress(copy, status)

    def _node(self, target: Place, status: os.stat_result) -> None:
        _clear(target)
        os.mknod(target.name, stat.S_IFMT(status.st_mode) | 0o600, dir_fd=target.directory)
        with closing(_pin(target)) as copy:
            self._dress(copy, status)

    def _dress(self, fd: int, status: os.stat_result) -> None:
        # By descriptor: the name may be a symlink by now, and chmod(2) knows no AT_SYMLINK_NOFOLLOW before Linux 6.6.
        path = _through(fd)
        if self._owner is not None:
            os.chown(path, *self._owner)
        if not stat.S_ISLNK(status.st_mode):  # after chown(2), which takes set-user-ID away
            os.chmod(path, stat.S_IMODE(status.st_mode) & self._mode_mask)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _pin(place: Place) -> int:
    return os.open(place.name, PIN | os.O_NOFOLLOW, dir_fd=place.directory)


def _open_beneath(directory: int, path: str) -> int:
    return openat2(directory, path, PIN | DIRECTORY, 0, Resolve.BENEATH | Resolve.NO_SYMLINKS)


def _through(fd: int) -> str:
    # The one magic link that is wanted: to the very inode, whatever its name leads to by now.
    return f"/proc/self/fd/{fd}"


def _clear(place: Place) -> None:
    with suppress(FileNotFoundError):
        os.unlink(place.name, dir_fd=place.directory)


def _create(place: Place) -> int:
    # Replaced, not rewritten: what is running, or mapped, keeps the file that it has. A mount point cannot be replaced.
    try:
        _clear(place)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return os.open(place.name, _OLD, dir_fd=place.directory)
    return os.open(place.name, _NEW, 0o600, dir_fd=place.directory)


def _make_directory(place: Place) -> bool:
    try:
        os.mkdir(place.name, 0o700, dir_fd=place.directory)
    except FileExistsError:
        return False
    return True


def _copy_unsized(source: int, target: int) -> None:
    # A file of /proc does not know its size: to the kernel's fast ways of copying it looks empty.
    while chunk := os.read(source, _CHUNK):
        write_all(target, memoryview(chunk))


def _data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # holes only, from here on
                return
            start = end
            end = size  # a file system that knows no holes
        else:
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end


def _copy_range(source: int, target: int, start: int, end: int) -> int:
    while start < end:
        copied = _copy_some(source, target, start, end - start)
        if not copied:
            break
        start += copied
    return start


def _copy_some(source: int, target: int, start: int, count: int) -> int:
    for way in (_copy_file_range, _sendfile):
        try:
            return way(source, target, start, count)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    return os.pwrite(target, os.pread(source, min(count, _CHUNK), start), start)


def _copy_file_range(source: int, target: int, start: int, count: int) -> int:
    if not hasattr(os, "copy_file_range"):  # Pythons built on an old glibc
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return os.copy_file_range(source, target, count, start, start)


def _sendfile(source: int, target: int, start: int, count: int) -> int:
    os.lseek(target, start, os.SEEK_SET)
    return os.sendfile(target, source, start, count)
