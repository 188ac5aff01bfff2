"""PYTEST_DONT_REWRITE. The client's end of a sandbox's control socket, whose other end its init has."""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import SandboxClosedError
from pytest_sandbox_runtime.supervisor.messages import receive, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.cgroups import OomWatch

    Answer = tuple[list[Any], list[int]]


class Control:
    """Asks the init of the sandbox ``name`` over ``channel``. Safe to use from several threads.

    Every method raises SandboxClosedError where that init has died; ``oom`` and ``last_words`` may say why. ``is_idle``
    is whether everything but init was killed since the last command.
    """

    def __init__(self, name: str, channel: socket.socket, oom: OomWatch, last_words: Callable[[], str]) -> None:
        self.is_idle = False
        self._name = name
        self._channel = channel
        self._oom = oom
        self._last_words = last_words

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._channel.fileno()

    def close(self) -> None:
        """Close the socket. Again: nothing."""
        self._channel.close()

    def start(self, command: tuple[object, ...], streams: tuple[int, ...]) -> tuple[socket.socket, Answer]:
        """Ask for a command; return the socket that later tells of its end, and the first answer on it."""
        self.is_idle = False
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._tell(("exec", command), (theirs.fileno(), *streams))
            return reply, self._answer(reply)
        except BaseException:
            reply.close()
            raise

    def signal(self, pid: int, number: int, *, group: bool) -> None:
        """Send a signal to a command, or to its process group."""
        self._tell(("signal", pid, int(number), group))

    def kill_all(self) -> None:
        """Kill every process but init, and wait until all are dead."""
        self._ask("kill_all")
        self.is_idle = True

    def open_socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        """Return a socket of the sandbox's network; raises OSError."""
        (word, *operands), fds = self._ask("socket", int(family), int(kind), int(protocol))
        if word == "failed":
            raise OSError(operands[0], os.strerror(operands[0]))
        return socket.socket(fileno=fds[0])

    def connect(self, family: int, address: tuple[str, int]) -> socket.socket:
        """Return a TCP socket of the sandbox's network, whose connect(2) is under way; raises OSError."""
        (word, *operands), fds = self._ask("connect", int(family), int(socket.SOCK_STREAM), address)
        if word == "failed":
            raise OSError(operands[0], os.strerror(operands[0]))
        return socket.socket(fileno=fds[0])

    def _ask(self, *message: object) -> Answer:
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with reply:
            with theirs:
                self._tell(message, (theirs.fileno(),))
            return self._answer(reply)

    def _answer(self, reply: socket.socket) -> Answer:
        received = receive_or_none(reply)
        if received is None:
            raise self._gone()
        words, fds = received
        return list(words), fds

    def _tell(self, message: tuple[object, ...], fds: tuple[int, ...] = ()) -> None:
        try:
            send(self._channel, message, fds)
        except (BrokenPipeError, ConnectionResetError):
            raise self._gone() from None

    def _gone(self) -> SandboxClosedError:
        why = "out of memory" if self._oom.has_killed() else "its init was killed"
        return SandboxClosedError(f"sandbox {self._name} has died: {why}", hint=self._last_words())


def receive_or_none(channel: socket.socket, flags: int = 0) -> tuple[tuple[object, ...], list[int]] | None:
    """Return the next message and its descriptors, None where the other end is gone."""
    try:
        return receive(channel, flags)
    except ConnectionError:
        return None


def kill(pidfd: int, *, wait: bool) -> None:
    """Kill the init behind ``pidfd``, whose end is that of all that the sandbox has in the kernel."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    if wait:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll()
