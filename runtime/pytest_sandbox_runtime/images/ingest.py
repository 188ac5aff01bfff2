"""PYTEST_DONT_REWRITE. Blobs that are being written, beside their place, under locks: dead writers hold none."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.images.digest import CHUNK, Digester, check_digest
from pytest_sandbox_runtime.images.places import explained

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

# What goes with its writer; and what stays for who writes the same blob, by its digest.
PARTIAL = ".partial-"
CUT = ".cut-"


class Ingest:
    """A blob that is being written: ``commit`` gives it its name, else the context's end removes it.

    One that ``is_resumed`` has what was written before, and what is written stays without ``commit``, too.
    """

    def __init__(self, path: str, fd: int, keep: Callable[[str], None], *, is_resumed: bool = False) -> None:
        self._path = path
        self._fd = fd
        self._keep = keep
        self._seen = Digester()
        self._is_resumed = is_resumed
        self._is_named = False
        if is_resumed:
            while data := os.read(fd, CHUNK):
                self._seen.update(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # What has its name has left the other one, which may be somebody else's by now.
        if not self._is_named and not (self._is_resumed and self._seen.size):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        # A fork of this process that lives on has the descriptor, too, and would keep others waiting.
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)

    @property
    def size(self) -> int:
        """How much of it is written."""
        return self._seen.size

    @property
    def digest(self) -> str:
        """The digest of what is written."""
        return self._seen.digest

    def restart(self) -> None:
        """Forget what is written."""
        self._seen = Digester()
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)

    def fileno(self) -> int:
        """Return the descriptor of what was written so far."""
        return self._fd

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data``, all of it; returns how much that is."""
        self._seen.update(data)
        view = memoryview(data)
        with explained(self._path):
            while view:
                view = view[os.write(self._fd, view) :]
        return len(data)

    def commit(self, digest: str | None = None, size: int | None = None) -> tuple[str, int]:
        """Make it a blob, and return its digest and size; raises ImageError where they are not the given ones."""
        self._seen.check(check_digest(digest) if digest else None, size, f"the blob {digest}" if digest else "a blob")
        with explained(self._path):
            self._keep(self._seen.digest)
            self._is_named = True
        return self._seen.digest, self._seen.size


def locked(path: str, pause: Callable[[], object]) -> int:
    """Return a descriptor of the file ``path``, which is made if need be, with its lock, for which ``pause`` waits.

    Who had it may have renamed or removed it meanwhile; then it is another file.
    """
    while True:
        with contextlib.ExitStack() as undo:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, fd)
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(path), os.fstat(fd)):
                    undo.pop_all()
                    return fd
        pause()


def remove_if_dead(path: str) -> None:
    """Remove the file ``path`` unless its writer lives and holds its lock."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
    finally:
        os.close(fd)
