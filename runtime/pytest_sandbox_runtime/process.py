"""A command in a sandbox, as its client sees it: pipes, waiting, signals, and what is left of it afterwards.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from typing import IO, TYPE_CHECKING, Any

from pytest_sandbox_runtime.control import receive_or_none
from pytest_sandbox_runtime.errors import CommandTimeoutError, SandboxClosedError
from pytest_sandbox_runtime.specs import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from pytest_sandbox_runtime.cgroups import OomWatch

PIPE = -1
DEVNULL = -3
STDOUT = -2
_CHUNK = 1 << 18


class Process:
    """A command that runs: only Sandbox.popen makes one. Its names are those of subprocess.Popen.

    ``pid`` is the one it has in the sandbox. ``stdin``, ``stdout`` and ``stderr`` are binary files, or None.
    """

    def __init__(
        self,
        args: list[str] | str,
        pid: int,
        reply: socket.socket,
        streams: tuple[IO[bytes] | None, ...],
        send_signal: Callable[..., None],
        oom: OomWatch,
        *,
        is_shared: bool = False,
    ) -> None:
        # Where others hear on the same socket of its end, it stays there to be read.
        self._flags = socket.MSG_PEEK if is_shared else 0
        self.args = args
        self.pid = pid
        self.stdin, self.stdout, self.stderr = streams
        self.returncode: int | None = None
        self.cpu_seconds: float | None = None
        self.oom_killed = False
        # How often it was started again: see Sandbox.popen.
        self.restarts = 0
        self._reply = reply
        self._signal = send_signal
        self._oom = oom
        self._began = time.monotonic()
        self._ended: float | None = None

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"returncode={self.returncode}"
        return f"<Process {self.args!r} pid={self.pid} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return a descriptor that is readable once the command has ended, for poll(2)."""
        return self._reply.fileno()

    def poll(self) -> int | None:
        """Return the return code, or None while the command runs."""
        while self.returncode is None and _readable(self._reply, 0):
            self._hear()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the return code when the command has ended; raises CommandTimeoutError after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            if not _readable(self._reply, None if deadline is None else deadline - time.monotonic()):
                raise CommandTimeoutError(Outcome(self.args, 0, b"", b""), timeout or 0)
            self._hear()
        return self.returncode

    def _hear(self) -> None:
        received = receive_or_none(self._reply, self._flags)
        if received is not None and received[0][0] == "restarted":
            self.pid = int(received[0][1])  # type: ignore[call-overload]
            self.restarts += 1
            return
        self._ended = time.monotonic()
        if received is None:
            # The sandbox died, and with it all in it, by SIGKILL: pid_namespaces(7).
            self.returncode = -signal.SIGKILL
        else:
            (_, returncode, cpu_seconds), _ = received
            self.returncode, self.cpu_seconds = int(returncode), float(cpu_seconds)  # type: ignore[call-overload, arg-type]
        if self.returncode == -signal.SIGKILL:
            self.oom_killed = self._oom.has_killed()
        self._reply.close()

    def send_signal(self, number: int) -> None:
        """Send a signal to the command; nothing happens when it has ended."""
        if self.poll() is None:
            self._signal(self.pid, number, group=False)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def kill_group(self) -> None:
        """Send SIGKILL to the command and all that it started in its process group."""
        self._signal(self.pid, signal.SIGKILL, group=True)

    def close(self) -> None:
        """Close the pipes, kill the command if it still runs, and wait for it. Again: nothing."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        if self.poll() is None:
            with contextlib.suppress(SandboxClosedError):
                self.kill_group()
            self.wait()

    def let_go(self) -> None:
        """Forget the command without ending it."""
        self._reply.close()

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:  # noqa: A002
        """Write ``input``, read all output until the command has ended, and return (stdout, stderr).

        What the command's own children print after its end is not waited for, so a daemon that keeps the pipes open
        holds nobody up. Raises CommandTimeoutError with what was printed, after killing the process group.
        """
        pump = _Pump(self, input)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            in_time = pump.run(deadline)
        except BaseException:
            self.kill_group()
            raise
        if not in_time:
            self.kill_group()
            pump.run(None)
            raise CommandTimeoutError(self.outcome(*pump.output()), timeout or 0)
        return pump.output()

    def outcome(self, stdout: Any, stderr: Any) -> Outcome:
        """Return what remains of the command, which has ended."""
        duration = (self._ended or time.monotonic()) - self._began
        return Outcome(self.args, self.returncode or 0, stdout, stderr, duration, self.oom_killed)


class _Pump:
    """Moves bytes between the client and the pipes of one command until it ends; memory is what the output is."""

    def __init__(self, process: Process, data: bytes | None) -> None:
        self._process = process
        self._input = memoryview(data or b"")
        self._poll = select.poll()
        self._chunks: dict[int, list[bytes]] = {}
        self._outputs = [stream.fileno() if stream is not None else None for stream in (process.stdout, process.stderr)]
        for fd in self._outputs:
            if fd is not None:
                os.set_blocking(fd, False)
                self._chunks[fd] = []
                self._poll.register(fd, select.POLLIN)
        self._open = set(self._chunks)
        if process.stdin is not None:
            self._start_writing(process.stdin)
        self._poll.register(process.fileno(), select.POLLIN)

    def _start_writing(self, stdin: IO[bytes]) -> None:
        if self._input:
            os.set_blocking(stdin.fileno(), False)
            self._poll.register(stdin.fileno(), select.POLLOUT)
        else:
            stdin.close()

    def run(self, deadline: float | None) -> bool:
        """Pump until the command has ended; False when ``deadline`` came first."""
        while self._process.returncode is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            events = self._poll.poll(left)
            if not events:
                return False
            for fd, _ in events:
                self._serve(fd)
        # All that the command itself has written is in the pipes now.
        for fd in list(self._open):
            while fd in self._open and self._read(fd):
                pass
        return True

    def _serve(self, fd: int) -> None:
        if fd in self._chunks:
            self._read(fd)
        elif self._process.stdin is not None and not self._process.stdin.closed and fd == self._process.stdin.fileno():
            self._write(self._process.stdin)
        else:
            self._process.poll()

    def _read(self, fd: int) -> bool:
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if chunk:
            self._chunks[fd].append(chunk)
            return True
        self._poll.unregister(fd)
        self._open.discard(fd)
        return False

    def _write(self, stdin: IO[bytes]) -> None:
        try:
            self._input = self._input[os.write(stdin.fileno(), self._input[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._input = self._input[:0]
        if not self._input:
            self._poll.unregister(stdin.fileno())
            stdin.close()

    def output(self) -> tuple[bytes, bytes]:
        """Return what was read so far."""
        stdout, stderr = (b"" if fd is None else b"".join(self._chunks[fd]) for fd in self._outputs)
        return stdout, stderr


def _readable(channel: socket.socket, timeout: float | None) -> bool:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(0, timeout) * 1000))
