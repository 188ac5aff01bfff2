"""A unit, as this process sees it: a process in a sandbox that runs the tests it is told to. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pytest_sandbox.fixtures import CAPTURES

if TYPE_CHECKING:
    import pytest

    from pytest_sandbox.told import Told
    from pytest_sandbox_runtime.sandbox import Sandbox
    from pytest_sandbox_runtime.specs import Outcome

# Before all that the process has to say.
LENGTH = struct.Struct("!Q")
# What it is called where it is told how it ended.
PROCESS = "the test's process"
# How long what has said its last word may take to die.
GRACE = 1.0


class Unit(ABC):
    """A process in a sandbox: it waits until it is told which test to run, and then tells how that went."""

    def __init__(self, first: pytest.Item, sandbox: Sandbox, channel: socket.socket) -> None:
        self.first = first
        self.sandbox = sandbox
        self._channel = channel
        # Readable when the process has ended, where that is known: what it has left behind may hold the channel open.
        self._ended: int | None = None
        self._has_more = False
        # What was not there when it began, and the test that has left it.
        self.left: dict[str, str] = {}

    @abstractmethod
    def _order(self, item: pytest.Item | None, following: pytest.Item | None) -> bytes:
        """Return what tells the process to run ``item``; without one it is to tear down what there is."""

    @abstractmethod
    def _decode(self, said: bytes) -> Told | str:
        """Return what the process has told; a sentence where it could not begin."""

    @abstractmethod
    def outcome(self) -> Outcome | None:
        """Return how the process ended; None if it has not."""

    @abstractmethod
    def printed(self) -> tuple[str, str]:
        """Return what was captured of the process, on stdout and stderr, and is in no report."""

    def admit(self, item: pytest.Item) -> None:  # noqa: B027  most can run all that they are given
        """Fail or skip where the process cannot run ``item``."""

    def begin(self, item: pytest.Item, following: pytest.Item | None) -> None:
        """Let a test run; what it has set up and ``following`` needs, too, it leaves as it is."""
        self._has_more = following is not None
        self._tell(item, following)

    def _tell(self, item: pytest.Item | None, following: pytest.Item | None) -> None:
        # Where it is dead already, who hears it is told how.
        with contextlib.suppress(OSError):
            self._channel.sendall(self._order(item, following), socket.MSG_NOSIGNAL)

    def hear(self, timeout: float | None) -> Told | str | None:
        """Return what the process has to tell, a sentence where it could not begin, or None where it died unheard.

        Raises TimeoutError after ``timeout`` seconds.
        """
        said = self._hear(timeout)
        return self._decode(said) if said else None

    def _hear(self, timeout: float | None) -> bytes:
        deadline = None if timeout is None else time.monotonic() + timeout
        (size,) = LENGTH.unpack(self._read(LENGTH.size, deadline).ljust(LENGTH.size, b"\0"))
        said = self._read(size, deadline)
        return said if len(said) == size else b""

    def _read(self, size: int, deadline: float | None) -> bytes:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        if self._ended is not None:
            poll.register(self._ended, select.POLLIN)
        data = bytearray()
        while len(data) < size:
            ready = poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                raise TimeoutError
            if self._channel.fileno() not in dict(ready):
                break
            try:
                chunk = self._channel.recv(size - len(data))
            except ConnectionResetError:
                break
            if not chunk:
                break
            data += chunk
        return bytes(data)

    def finish(self) -> Told | None:
        """Have it tear down what it has left for tests that will not come, and end it; returns what it tells then."""
        told = None
        if self._has_more:
            self._tell(None, None)
            told = self.hear(None)
        self.close()
        return None if isinstance(told, str) else told

    def close(self) -> None:
        """End the sandbox and all that is left in it. Again: nothing."""
        self._has_more = False
        self._channel.close()
        # Of one that was never to run.
        for capture in self.first.stash.get(CAPTURES, []):
            capture.discard()
        self.sandbox.close()
