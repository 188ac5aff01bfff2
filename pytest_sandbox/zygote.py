"""The zygote: a fork of this process, made when nothing changes in it any more, of which each unit inside is a fork.

A fork makes the pages of both sides copy on write, so this process would pay for each test's again and again; the
zygote does nothing but fork. What is open, imported and collected here is so there, and in every test.
PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_sandbox.fixtures import IS_INSIDE
from pytest_sandbox.unit import GRACE, LENGTH, PROCESS, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

    from pytest_sandbox.told import Told
    from pytest_sandbox_runtime.sandbox import Sandbox
    from pytest_sandbox_runtime.specs import Outcome

    # Without a test it is to tear down what there is.
    Live = Callable[[pytest.Item | None, pytest.Item | None], Told]

# The number of the test that is to run, and of the one that follows it there; _NONE, for both, to tear all down. And
# how many tests of the session have failed.
_ORDER = struct.Struct("!3i")
_NONE = -1


class Zygote:
    """The parent's side: asks for forks, and for how they ended. Tests go by their numbers in the session."""

    def __init__(
        self, config: pytest.Config, items: Sequence[pytest.Item], live: Live, forget: Callable[[], None]
    ) -> None:
        """Fork; each test's process will call ``live``, and what the fork holds of this one's it is to ``forget``."""
        flush(config)
        self.numbers = {id(item): number for number, item in enumerate(items)}
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._pid = _fork()
            if self._pid == 0:
                self._channel.close()
                _serve(theirs, items, live, forget)

    def fork(self, item: pytest.Item, sandbox: Sandbox) -> Fork:
        """Have a process for ``item``, and others behind it, wait in ``sandbox``; OSError where the zygote has died."""
        from pytest_sandbox_runtime.supervisor.messages import send

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        unit = Fork(self, item, sandbox, ours)
        with theirs:
            try:
                message = ("fork", self.numbers[id(item)], tuple(sandbox.way_in()), os.getcwd())
                send(self._channel, message, (sandbox.pidfd, sandbox.watch, theirs.fileno()))
            except BaseException:
                ours.close()
                raise
        return unit

    def status(self, first: pytest.Item) -> int | None:
        """Return how the process whose ``first`` test that is ended, as subprocess has it; None if it has not."""
        from pytest_sandbox_runtime.supervisor.messages import receive, send

        with contextlib.suppress(OSError):
            send(self._channel, ("status", self.numbers[id(first)]))
            if (received := receive(self._channel)) is not None:
                (status,), _ = received
                return status  # type: ignore[return-value]
        return None

    def close(self) -> None:
        """End the zygote; what it has forked dies with its sandbox."""
        self._channel.close()
        os.waitpid(self._pid, 0)


class Fork(Unit):
    """A unit that is a fork of this process."""

    def __init__(self, zygote: Zygote, first: pytest.Item, sandbox: Sandbox, channel: socket.socket) -> None:
        super().__init__(first, sandbox, channel)
        self._zygote = zygote

    def _order(self, item: pytest.Item | None, following: pytest.Item | None) -> bytes:
        numbers = (_NONE if one is None else self._zygote.numbers[id(one)] for one in (item, following))
        return _ORDER.pack(*numbers, self.first.session.testsfailed)

    def _decode(self, said: bytes) -> Told | str:
        import pickle

        told: Told | str = pickle.loads(said)
        return told

    def outcome(self) -> Outcome | None:
        """Return how the process ended; None if it has not."""
        from pytest_sandbox_runtime.specs import Outcome

        status = self._zygote.status(self.first)
        if status is None:
            return None
        return Outcome(PROCESS, status, oom_killed=self.sandbox.was_oom_killed())

    def printed(self) -> tuple[str, str]:
        """Return what is left in the capture that both have; else the next one would take it for its own."""
        capture: Any = self.first.config.pluginmanager.getplugin("capturemanager")
        return tuple(capture.read_global_capture()) if capture.is_globally_capturing() else ("", "")


def _fork() -> int:
    import warnings

    with warnings.catch_warnings():
        # Other threads do not live on in a fork; pytest-xdist's are idle while a test runs.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _serve(channel: socket.socket, items: Sequence[pytest.Item], live: Live, forget: Callable[[], None]) -> NoReturn:
    try:
        forget()
        _load()
        # What there is now is not ours to collect: the collector would touch, and so copy, all of it.
        gc.freeze()
        _Nursery(channel, items, live).serve()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def _load() -> None:
    """Have here, once, what each test's process would import or make again."""
    import pickle

    import pytest_sandbox.told
    from pytest_sandbox_runtime.entering import prepare

    pickle.dumps(pytest_sandbox.told.Told())
    prepare()


class _Nursery:
    """The zygote's own side."""

    def __init__(self, channel: socket.socket, items: Sequence[pytest.Item], live: Live) -> None:
        self._channel = channel
        self._items = items
        self._live = live
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        # By the number of their first test: the pid, a pidfd of it, and its end of the channel.
        self._running: dict[int, tuple[int, int, socket.socket]] = {}
        self._ended: dict[int, int] = {}
        # A terminal's Ctrl-C is for the parent and the test that runs.
        self._interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def serve(self) -> NoReturn:
        is_asked = True
        while is_asked:
            for fd, _ in self._poll.poll():
                if fd == self._channel.fileno():
                    is_asked = self._answer()
                else:
                    # At once: the kernel does not end a sandbox before that, and who closes it may wait.
                    for number in [one for one, (_, pidfd, _) in self._running.items() if pidfd == fd]:
                        self._reap(number)
        for number in list(self._running):
            # Dead with their sandboxes, and an orphan may wait for that: some hosts' PID 1 takes seconds.
            self._reap(number)
        os._exit(0)

    def _answer(self) -> bool:
        from pytest_sandbox_runtime.supervisor.messages import receive, send

        received = receive(self._channel)
        if received is None:
            return False
        (word, *operands), fds = received
        if word == "fork":
            self._fork(*operands, *fds)  # type: ignore[arg-type]
        else:
            send(self._channel, (self._status(*operands),))  # type: ignore[arg-type]
        return True

    def _fork(self, number: int, way: tuple[object, ...], directory: str, pidfd: int, watch: int, end: int) -> None:
        from pytest_sandbox_runtime.entering import WayIn, fork_into

        theirs = socket.socket(fileno=end)
        pid = -1
        try:
            pid = fork_into(WayIn(*way), pidfd, watch, directory, lambda sentence: _send(theirs, sentence))  # type: ignore[arg-type]
        except OSError as error:
            _send(theirs, f"the test's process could not be made: {error}")
            theirs.close()
            return
        finally:
            os.close(pidfd)
            if pid != 0:
                os.close(watch)
        if pid == 0:
            self._channel.close()
            for *_, other in self._running.values():
                other.close()
            signal.signal(signal.SIGINT, self._interrupt)
            _be(self._items, self._items[number].config, theirs, self._live)
        self._running[number] = pid, os.pidfd_open(pid), theirs
        self._poll.register(self._running[number][1], select.POLLIN)
        self._ended.pop(number, None)

    def _reap(self, number: int) -> None:
        """Take note of how one has ended, or will now; of most nobody will ask."""
        pid, pidfd, theirs = self._running.pop(number)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        with theirs, contextlib.suppress(OSError):
            # What it has left behind may hold it open.
            theirs.shutdown(socket.SHUT_RDWR)
        self._ended[number] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _status(self, number: int) -> int | None:
        if number in self._running:
            poll = select.poll()
            poll.register(self._running[number][1], select.POLLIN)
            if poll.poll(GRACE * 1000):
                self._reap(number)
        return self._ended.pop(number, None)


def _be(items: Sequence[pytest.Item], config: pytest.Config, channel: socket.socket, live: Live) -> NoReturn:
    status = 1
    session = items[0].session
    try:
        config.stash[IS_INSIDE] = True
        while order := channel.recv(_ORDER.size, socket.MSG_WAITALL):
            *numbers, session.testsfailed = _ORDER.unpack(order)
            told = live(*(None if number == _NONE else items[number] for number in numbers))
            flush(config)
            _send(channel, told)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        flush(config)
        os._exit(status)


def _send(channel: socket.socket, message: Told | str) -> None:
    import pickle

    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    channel.sendall(LENGTH.pack(len(data)) + data)


def flush(config: pytest.Config) -> None:
    """Write out what is buffered, so that a fork does not write it again, nor take it along when it ends."""
    config.get_terminal_writer().flush()
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
