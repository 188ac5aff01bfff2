"""A unit: a fork of this process that waits inside its sandbox until told to run, and then sends its reports home.

Both sides of the fork are here: what the parent holds, and what the child does. PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox.told import Told
    from pytest_sandbox_runtime.sandbox import Sandbox

# Set in the fork, for good: whoever runs a test may do so there, and nowhere else.
IS_INSIDE = pytest.StashKey[bool]()
_GO = b"!"
_LENGTH = struct.Struct("!Q")


class Unit:
    """A test's process in its sandbox, seen from the one that it is a fork of."""

    def __init__(self, item: pytest.Item, sandbox: Sandbox, live: Callable[[pytest.Item], Told]) -> None:
        """Fork; the fork calls ``live`` once it is told to, and never returns."""
        from pytest_sandbox_runtime.entering import fork_into

        self.item = item
        self.sandbox = sandbox
        flush(item.config)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self.pid = fork_into(sandbox, os.getcwd(), lambda sentence: _send(theirs, sentence))
            if self.pid == 0:
                self._channel.close()
                _be(item, theirs, live)

    def begin(self) -> None:
        """Let the test run."""
        try:
            self._channel.send(_GO, socket.MSG_NOSIGNAL)
        except OSError:
            # It is dead already: who hears it is told how.
            return

    def hear(self, timeout: float | None) -> Told | str | None:
        """Return what the fork has to tell, a sentence where it could not begin, or None where it died without a word.

        Raises TimeoutError after ``timeout`` seconds.
        """
        import pickle

        deadline = None if timeout is None else time.monotonic() + timeout
        (size,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline).ljust(_LENGTH.size, b"\0"))
        data = self._read(size, deadline)
        told: Told | str | None = pickle.loads(data) if data and len(data) == size else None
        return told

    def _read(self, size: int, deadline: float | None) -> bytes:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        data = bytearray()
        while len(data) < size:
            if not poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            try:
                chunk = self._channel.recv(size - len(data))
            except ConnectionResetError:
                break
            if not chunk:
                break
            data += chunk
        return bytes(data)

    def close(self) -> None:
        """End the sandbox and all that is left in it. Again: nothing."""
        self._channel.close()
        self.sandbox.close()


def _be(item: pytest.Item, channel: socket.socket, live: Callable[[pytest.Item], Told]) -> NoReturn:
    status = 1
    try:
        # What there is now is not ours to collect: the collector would touch, and so copy, all of it.
        gc.freeze()
        item.config.stash[IS_INSIDE] = True
        if channel.recv(1) == _GO:
            told = live(item)
            flush(item.config)
            _send(channel, told)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        flush(item.config)
        os._exit(status)


def _send(channel: socket.socket, message: Told | str) -> None:
    import pickle

    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    channel.sendall(_LENGTH.pack(len(data)) + data)


def flush(config: pytest.Config) -> None:
    """Write out what is buffered, so that a fork does not write it again, nor take it along when it ends."""
    config.get_terminal_writer().flush()
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
