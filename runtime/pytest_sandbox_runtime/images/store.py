"""PYTEST_DONT_REWRITE. Where unpacked images are kept, for any number of runs at once.

Each layer is named by the digest of what it came from, written under another name and renamed: what has its name is
whole, whenever a maker was killed. What dead makers left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pwd
import shutil
import stat
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError, SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from filelock import BaseFileLock

    from pytest_sandbox_runtime.specs import Image

_PARTIAL = ".partial-"
_TOP = ("bin", "sbin", "usr")
_CHUNK = 1 << 20
# The coarsest clock of file times is a jiffy of 10 ms: a file can change twice within one and look the same.
_SETTLED_NS = 20_000_000
_ELSEWHERE = "put the store elsewhere with PYTEST_SANDBOX_HOME"


def default_store(environ: Mapping[str, str]) -> str:
    """Return where the store is: PYTEST_SANDBOX_HOME, or below the user's cache directory."""
    home = environ.get("PYTEST_SANDBOX_HOME")
    if home:
        return os.path.abspath(home)
    cache = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    return os.path.join(cache if os.path.isabs(cache) else _home_cache(environ), "pytest-sandbox")


def _home_cache(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    if os.path.isabs(home):
        return os.path.join(home, ".cache")
    try:
        return os.path.join(pwd.getpwuid(os.geteuid()).pw_dir, ".cache")
    except KeyError as error:
        msg = f"there is no place for the store: HOME is not set and user {os.geteuid()} has no passwd entry"
        raise SandboxError(msg, hint=_ELSEWHERE) from error


class Store:
    """The directory of images and layers; private to its user, made when first opened.

    Raises SandboxError where it cannot be made or belongs to somebody else.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._layers = os.path.join(self.path, "layers")
        self._builds = os.path.join(self.path, "builds")
        self._locks = os.path.join(self.path, "locks")
        with self._explained():
            self._open()

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def root_of(self, image: Image) -> str:
        """Return the directory that holds the root file system of ``image``, which is an archive: unpacked once.

        A directory is returned as it is. Raises ImageError where there is no root file system in ``image``.
        """
        if image.path is None:
            raise ImageError(f"{image} is no archive", hint="Image.archive(path) is")
        if os.path.isdir(image.path):
            _check_root(image.path, image.path)
            return image.path
        with self._explained():
            return self._layer_of(image.path)

    def _open(self) -> None:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        _make_private(self.path)
        status = os.stat(self.path)
        if status.st_uid != os.geteuid():
            msg = f"the store {self.path} belongs to user {status.st_uid}, and this is user {os.geteuid()}"
            raise SandboxError(msg, hint=f"sudo may have kept HOME: {_ELSEWHERE}")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            msg = f"the store {self.path} can be written by other users"
            raise SandboxError(msg, hint=f"name a directory of its own, or run chmod 700 {self.path}")
        # What is in them is private even where the directory around them was made for all to read.
        for directory in (self._layers, self._builds, self._locks):
            _make_private(directory)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, SandboxError):
                raise
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            hint = f"free some space, or {_ELSEWHERE}" if full else _ELSEWHERE
            msg = f"the store {self.path} cannot be used: {error.strerror or error} ({error.filename or self.path})"
            raise SandboxError(msg, hint=hint) from error

    def _layer_of(self, archive: str) -> str:
        with _opened(archive) as fd:
            identity = _identity(fd)
            digest = self._recall(archive, identity)
            if digest is None:
                digest = self._digest(archive, fd, identity)
            layer = os.path.join(self._layers, digest)
            if not os.path.isdir(layer):
                self._make(layer, archive, fd, identity)
        return layer

    def _recall(self, archive: str, identity: list[int]) -> str | None:
        try:
            with open(self._record_of(archive), encoding="ascii") as record:
                known, digest = json.load(record)
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return str(digest) if known == identity else None

    def _record_of(self, archive: str) -> str:
        return os.path.join(self._builds, f"archive-{hashlib.sha256(os.fsencode(archive)).hexdigest()}")

    def _digest(self, archive: str, fd: int, identity: list[int]) -> str:
        began = time.time_ns()
        digest = _sha256(fd)
        _check_unchanged(archive, fd, identity)
        if began - max(os.fstat(fd).st_ctime_ns, os.fstat(fd).st_mtime_ns) > _SETTLED_NS:
            self._remember(archive, identity, digest)
        return digest

    def _remember(self, archive: str, identity: list[int], digest: str) -> None:
        # Written in place: a reader that meets half of it, or of two, finds no JSON and takes the digest anew.
        with open(self._record_of(archive), "w", encoding="ascii") as record:
            record.write(json.dumps([identity, digest]))

    def _make(self, layer: str, archive: str, fd: int, identity: list[int]) -> None:
        digest = os.path.basename(layer)
        with self._lock(digest):
            if os.path.isdir(layer):
                return
            self._sweep(digest)
            partial = self._partial_of(digest)
            with ExitStack() as undo:
                undo.callback(_remove_tree, partial)
                os.mkdir(partial, 0o700)
                _unpack(archive, fd, partial)
                _check_unchanged(archive, fd, identity)
                os.rename(partial, layer)

    def _lock(self, digest: str) -> BaseFileLock:
        from filelock import FileLock

        return FileLock(os.path.join(self._locks, f"layer-{digest}.lock"))

    def _sweep(self, mine: str) -> None:
        """Remove what dead makers left: they hold no lock any more."""
        left = [name[len(_PARTIAL) :] for name in os.listdir(self._layers) if name.startswith(_PARTIAL)]
        for digest in left:
            with ExitStack() as held:
                if digest == mine or self._try_lock(digest, held):
                    _remove_tree(self._partial_of(digest))

    def _try_lock(self, digest: str, held: ExitStack) -> bool:
        from filelock import Timeout

        try:
            held.enter_context(self._lock(digest).acquire(timeout=0))
        except Timeout:
            return False
        return True

    def _partial_of(self, digest: str) -> str:
        return os.path.join(self._layers, _PARTIAL + digest)


def _unpack(archive: str, fd: int, partial: str) -> None:
    from pytest_sandbox_runtime.images.unpack import unpack

    os.lseek(fd, 0, os.SEEK_SET)
    # The very file that has the digest, whatever has its name by now.
    with open(archive, "rb", buffering=0, opener=lambda _path, _flags: os.dup(fd)) as stream:
        unpack(stream, partial)
    _check_root(partial, archive)


@contextlib.contextmanager
def _opened(archive: str) -> Iterator[int]:
    try:
        # Without O_NONBLOCK a fifo would hold us for ever.
        fd = os.open(archive, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        msg = f"cannot read the archive {archive}: {error.strerror}"
        raise ImageError(msg, hint="check the path and that you may read it") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ImageError(f"{archive} is neither a file nor a directory", hint="name a tar or a directory")
        yield fd
    finally:
        os.close(fd)


def _identity(fd: int) -> list[int]:
    status = os.fstat(fd)
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _sha256(fd: int) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with open(fd, "rb", buffering=0, closefd=False) as stream:
        while size := stream.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def _check_unchanged(archive: str, fd: int, identity: list[int]) -> None:
    if _identity(fd) != identity:
        raise ImageError(f"{archive} was changed while it was read", hint="run again when it is complete")


def _check_root(root: str, named: str) -> None:
    """Raise ImageError, about ``named``, unless ``root`` has what every root file system has."""
    try:
        names = os.listdir(root)
    except OSError as error:
        msg = f"cannot read the root file system {named}: {error.strerror}"
        raise ImageError(msg, hint="check that you may read it") from error
    if not set(_TOP).intersection(names):
        found = ", ".join(sorted(names)[:5]) or "nothing"
        msg = f"{named} holds no root file system: there is no {', '.join(_TOP)}, but {found}"
        raise ImageError(msg, hint=_hint_for(names))


def _hint_for(names: list[str]) -> str:
    if "manifest.json" in names or "oci-layout" in names:
        return "it is an image with layers, which is not read yet: make a tar of its root with docker export"
    if len(names) == 1:
        return f"if the root file system is in its {names[0]}, pack that directory's content, or name that directory"
    return "pack the root directory itself, for instance: tar -C ROOT -cf root.tar ."


def _make_private(directory: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)


def _remove_tree(path: str) -> None:
    if not os.path.isdir(path):
        return
    if os.geteuid() != 0:
        _make_writable(path)
    shutil.rmtree(path)


def _make_writable(path: str) -> None:
    # An image has directories that not even their owner may write in.
    os.chmod(path, 0o700)
    for directory, names, _ in os.walk(path):
        for name in names:
            below = os.path.join(directory, name)
            if not os.path.islink(below):
                os.chmod(below, 0o700)
