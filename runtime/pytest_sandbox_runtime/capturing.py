"""PYTEST_DONT_REWRITE. Captures of packets: what a sandbox or a network sends and receives, in a pcap file."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
import threading
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import FileAccessError, SandboxClosedError, SpecError, StartError, UnsupportedError
from pytest_sandbox_runtime.network.capture import BLOCK_SIZE
from pytest_sandbox_runtime.supervisor.messages import receive, send

if TYPE_CHECKING:
    from typing_extensions import Self

    from pytest_sandbox_runtime.connection import Connection

# What tcpdump has too; no packet is larger.
_MAX_SNAPLEN = 1 << 18
# What waits to be written, while a disk is busy: at 500 MB/s for 60 ms.
BUFFER = 32 << 20
_MOST_BUFFER = 1 << 30
_LEAST_BLOCKS = 2


class Capture:
    """Packets on their way into the file ``path``: only Sandbox.capture and LiveNetwork.capture make one."""

    def __init__(self, path: str, channel: socket.socket) -> None:
        self.path = path
        self._channel: socket.socket | None = channel
        self._lock = threading.Lock()
        self._counts = (0, 0)

    def __repr__(self) -> str:
        return f"<Capture {self.path} {'running' if self.is_running else 'stopped'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether it was not stopped yet."""
        return self._channel is not None

    @property
    def packets(self) -> int:
        """How many packets are in the file: all that were sent until now."""
        return self._ask("count")[0]

    @property
    def dropped(self) -> int:
        """How many packets are missing in the file, as more came at a time than could be written."""
        return self._ask("count")[1]

    def stop(self) -> None:
        """Write no more packets: all that were sent until now are in the file. Again: nothing.

        Raises FileAccessError where the file could not be written to the end.
        """
        self._ask("stop")

    close = stop

    def discard(self) -> None:
        """Stop, and remove the file. Again: nothing."""
        self.let_go()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def let_go(self) -> None:
        """Forget it: it goes on where others have it, too, as in a fork, and else ends."""
        with self._lock:
            channel, self._channel = self._channel, None
            if channel is not None:
                channel.close()

    def _ask(self, word: str) -> tuple[int, int]:
        with self._lock:
            if self._channel is None:
                return self._counts
            # It may have ended already, and have said so.
            with contextlib.suppress(BrokenPipeError):
                send(self._channel, (word,))
            said, packets, dropped, *code = _hear(self._channel) or ("ended", *self._counts, 0)
            self._counts = packets, dropped
            if said == "ended":
                self._channel.close()
                self._channel = None
                _check(self.path, *code)
            return self._counts


def begin(
    connection: Connection,
    where: str | int,
    path: str | os.PathLike[str] | None,
    snaplen: int | None,
    buffer: int | None,
) -> Capture:
    """Capture what crosses the devices of a sandbox, by its name, or of a network, by its number."""
    _check_number("snaplen", snaplen, "it is how many bytes of each packet are written; leave it out for all")
    # Else the kernel would take all memory before it says no.
    _check_number("buffer", buffer, "it is how many bytes may wait to be written", _MOST_BUFFER)
    how = min(snaplen or _MAX_SNAPLEN, _MAX_SNAPLEN), max((buffer or BUFFER) // BLOCK_SIZE, _LEAST_BLOCKS)
    if path is None:
        path = os.path.join(connection.run, f"capture-{where}-{os.urandom(4).hex()}.pcap")
    path = os.path.abspath(os.fspath(path))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        file = _open(path)
        undo.callback(os.unlink, path)
        try:
            connection.ask(("capture", where, how), (file, theirs.fileno()))
        except StartError as error:
            if error.code != errno.ESRCH:
                raise
            raise _ended(where) from None
        finally:
            os.close(file)
        theirs.close()
        _await_begin(ours, where)
        undo.pop_all()
    return Capture(path, ours)


def _check_number(name: str, value: int | None, hint: str, most: int = sys.maxsize) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        upto = "on" if most == sys.maxsize else f"to {most}"
        raise SpecError(f"{name}={value!r} is no number from 1 {upto}", hint=hint)


def _ended(where: str | int) -> SandboxClosedError:
    what = f"network {where}" if isinstance(where, int) else f"sandbox {where}"
    return SandboxClosedError(f"{what} has ended, and cannot be captured any more")


def _open(path: str) -> int:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise _unwritable(path, error.errno or 0) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        # Whoever reads it could stop to, and so hold up the end of the run.
        raise SpecError(f"packets are written to regular files, and {path} is none")
    os.ftruncate(file, 0)
    return file


def _await_begin(channel: socket.socket, where: str | int) -> None:
    _, code = _hear(channel) or ("began", errno.ESRCH)
    if code:
        if code == errno.ESRCH:
            # It was about to when the supervisor was asked.
            raise _ended(where)
        raise UnsupportedError(f"packets cannot be captured: {os.strerror(code)}")


def _hear(channel: socket.socket) -> tuple[Any, ...] | None:
    """Return what is said next, or None where nothing is any more."""
    try:
        received = receive(channel)
    except ConnectionError:
        return None
    return None if received is None else received[0]


def _check(path: str, code: int) -> None:
    if code:
        raise _unwritable(path, code)


def _unwritable(path: str, code: int) -> FileAccessError:
    msg = f"captured packets cannot be written to {path}: {os.strerror(code)}"
    return FileAccessError(msg, errno=code, filename=path)
