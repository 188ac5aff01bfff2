"""PYTEST_DONT_REWRITE. What is in use: leases, files that name what their holder uses, locked for as long as it lives.

One gate, flock(2), stands between using and removing: who begins to use something passes it with others, who removes
goes through alone. So what is named in a living lease is there and stays, and a dead holder's lease is void at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.images.places import explained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

_GATE = "gate"
_SUFFIX = ".lease"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Leases:
    """The leases in the directory ``path``, of all processes."""

    def __init__(self, path: str) -> None:
        self._path = path

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Stay in the gate with others: nothing is removed meanwhile. To be left soon."""
        with self._gate(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Stay in the gate alone: nobody begins to use anything meanwhile. To be left soon."""
        with self._gate(fcntl.LOCK_EX):
            yield

    def take(self) -> Lease:
        """Return a new lease, of nothing yet."""
        with self.shared():
            path = os.path.join(self._path, os.urandom(16).hex() + _SUFFIX)
            fd = os.open(path, _FLAGS | os.O_EXCL, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
        return Lease(self, path, fd)

    def in_use(self) -> set[str]:
        """Return all that living leases name, and remove the dead ones; to be asked alone in the gate."""
        used: set[str] = set()
        for name in os.listdir(self._path):
            if name.endswith(_SUFFIX):
                used.update(_read(os.path.join(self._path, name)))
        return used

    @contextlib.contextmanager
    def _gate(self, operation: int) -> Iterator[None]:
        fd = os.open(os.path.join(self._path, _GATE), _FLAGS, 0o600)
        try:
            fcntl.flock(fd, operation)
            yield
        finally:
            os.close(fd)


class Lease:
    """What one holder uses. It ends with ``close``, or with the process."""

    def __init__(self, leases: Leases, path: str, fd: int) -> None:
        self._leases = leases
        self._path = path
        self._fd = fd
        self._named: set[str] = set()
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def __repr__(self) -> str:
        return f"<Lease {self._path} {'closed' if self._fd < 0 else f'of {len(self._named)}'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def pin(self, *digests: str) -> None:
        """Use ``digests`` from now on: what of them is there, or will be, stays. They may be absent."""
        with self._lock:
            new = set(digests) - self._named
            if new:
                # Between line ends, as a full disk may have cut what was written before.
                lines = "".join(f"\n{digest}\n" for digest in sorted(new)).encode()
                with explained(self._path, "the lease"), self._leases.shared():
                    while lines:
                        lines = lines[os.write(self._fd, lines) :]
                self._named |= new

    def close(self) -> None:
        """Use nothing any more. Again: nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # A fork has the lease as well, and it is not the fork's to end.
            if self._owner == os.getpid():
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            os.close(fd)


def _read(path: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    with open(fd, "rb") as file:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().decode("ascii", "replace").split()
        with contextlib.suppress(FileNotFoundError):  # its holder was just ending it
            os.unlink(path)
        return []
