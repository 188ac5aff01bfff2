"""Pseudoterminals: a command that believes it talks to a person, and a person's terminal joined to it.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from typing_extensions import Self

    from pytest_sandbox_runtime.process import Process

# Seconds in which what was printed before an end arrives: a terminal's bytes are moved by the kernel's own threads.
_LAST_WORDS = 0.1


class Terminal:
    """The master side of a command's terminal: only Sandbox.pty makes one."""

    def __init__(self, master: int, process: Process) -> None:
        self.process = process
        self._master = master

    def __repr__(self) -> str:
        return f"<Terminal of {self.process!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the master's descriptor, for poll(2)."""
        return self._master

    def read(self, size: int = 65536) -> bytes:
        """Return what the command has printed, at most ``size`` bytes; waits for some; b"" once it has hung up."""
        return _read(self._master, size)

    def read_until(self, expected: bytes, timeout: float | None = None) -> bytes:
        """Return all up to and with ``expected``; raises TimeoutError or EOFError with what came instead."""
        seen = b""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        while expected not in seen:
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise TimeoutError(f"{expected!r} was not printed within {timeout:g} s, but {seen!r}")
            chunk = self.read(1)
            if not chunk:
                raise EOFError(f"{expected!r} was not printed before the end, but {seen!r}")
            seen += chunk
        return seen

    def write(self, data: bytes) -> None:
        """Type ``data``."""
        _write_all(self._master, data)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size; the command gets SIGWINCH."""
        _resize(self._master, rows, columns)

    def wait(self, timeout: float | None = None) -> int:
        """Return the command's return code when it has ended."""
        return self.process.wait(timeout)

    def close(self) -> None:
        """Hang up, and end the command. Again: nothing."""
        if self._master != -1:
            os.close(self._master)
            self._master = -1
        self.process.close()


def interact(terminal: Terminal) -> int:
    """Join this process's own terminal to ``terminal`` until the command ends; returns its return code."""
    _join(terminal.fileno(), terminal.process.fileno())
    return terminal.wait()


def interact_here(args: Sequence[str]) -> int:
    """Run a command in this very process's machine, on a terminal of its own that is joined to this process's.

    So that keys like Ctrl-C are for the command alone; returns its return code.
    """
    pid, master = pty.fork()
    if pid == 0:
        try:
            os.execv(args[0], list(args))  # noqa: S606  a shell is what is wanted
        finally:
            os._exit(127)
    pidfd = os.pidfd_open(pid)
    try:
        _join(master, pidfd)
    finally:
        os.close(pidfd)
        os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def shell_of(exists: Callable[[str], bool]) -> list[str]:
    """Return the command of the best shell that there is, for a person to talk to."""
    return ["/bin/bash" if exists("/bin/bash") else "/bin/sh", "-i"]


def _join(master: int, process: int) -> None:
    outside = sys.stdin.fileno()
    with _raw(outside), _following_size(master, outside):
        _relay(master, outside, sys.stdout.fileno(), process)


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        # Raw, so that Ctrl-C is a byte that the inner terminal turns into SIGINT for the command. What was typed
        # already stays.
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _following_size(master: int, outside: int) -> Iterator[None]:
    def follow(_number: int = 0, _frame: FrameType | None = None) -> None:
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(outside)
            _resize(master, rows, columns)

    follow()
    before = signal.signal(signal.SIGWINCH, follow)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _relay(master: int, source: int, sink: int, process: int) -> None:
    poll = select.poll()
    for fd in (master, source, process):
        poll.register(fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == master:
                if not _pass_on(master, sink):
                    return
            elif fd == process:
                _drain(master, sink)
                return
            else:
                typed = os.read(source, 4096)
                if not typed:
                    # End of a pipe: what a person says with Ctrl-D.
                    poll.unregister(source)
                _write_all(master, typed or b"\x04")


def _drain(master: int, sink: int) -> None:
    """Pass on what the command has printed last; what it left behind may hold the terminal open, but nobody up."""
    poll = select.poll()
    poll.register(master, select.POLLIN)
    deadline = time.monotonic() + _LAST_WORDS
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000) and _pass_on(master, sink):
        pass


def _pass_on(master: int, sink: int) -> bool:
    data = _read(master)
    _write_all(sink, data)
    return bool(data)


def _read(master: int, size: int = 65536) -> bytes:
    try:
        return os.read(master, size)
    except OSError:
        # EIO is a master's end of file: pty(7).
        return b""


def _resize(master: int, rows: int, columns: int) -> None:
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
