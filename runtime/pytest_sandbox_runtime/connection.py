"""PYTEST_DONT_REWRITE. The client's end of a run: the socket to its supervisor, which it starts or joins."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.capabilities import explain, is_privileged
from pytest_sandbox_runtime.errors import EngineError, SandboxClosedError, SandboxError, StartError
from pytest_sandbox_runtime.state import can_be_upper, create_run, subordinate_ids
from pytest_sandbox_runtime.supervisor.messages import receive, send
from pytest_sandbox_runtime.supervisor.removal import remove_run
from pytest_sandbox_runtime.supervisor.server import MEMORY, SOCKET_NAME, START

if TYPE_CHECKING:
    from typing_extensions import Self

    from pytest_sandbox_runtime.specs import SandboxSpec

    Answer = tuple[tuple[Any, ...], list[int]]

_SUPERVISOR = os.path.join(os.path.dirname(__file__), "supervisor", "__main__.py")
_PATIENCE = 10.0
# So much of its log is quoted, in bytes.
_LAST = 2000


class Connection:
    """A live connection to the supervisor of the run in the directory ``run``. Safe to use from several threads."""

    def __init__(self, run: str, channel: socket.socket, undo: ExitStack) -> None:
        self.run = run
        self._channel = channel
        self._undo: ExitStack | None = undo
        self._owner = os.getpid()
        self._lock = threading.Lock()
        # Open from here on: a supervisor that ends removes it with the run.
        self._log = os.open(_log_of(run), os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, self._log)
        # Where the supervisor's own memory can be seen, and what the watch of the run hears: see network.watch.
        self._memory, self.watch = self._greet()

    @classmethod
    def launch(cls, store: str) -> Self:
        """Start a supervisor, whose run has its directory in ``store``; raises SandboxError where it cannot start."""
        with ExitStack() as undo:
            run = create_run(store)
            undo.callback(os.close, run.lock)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                supervisor = _launch(run.path, theirs.fileno(), run.lock)
            undo.callback(_await_end, supervisor)
            undo.callback(ours.close)
            try:
                return cls(run.path, ours, undo.pop_all())
            except SandboxError:
                # There is no supervisor that would do it.
                with contextlib.suppress(OSError):
                    remove_run(run.path)
                raise

    @classmethod
    def join(cls, run: str) -> Self:
        """Become one more client of the supervisor that listens in the directory ``run``."""
        with ExitStack() as undo:
            channel = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            directory = os.open(run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # By descriptor, as the path may be longer than unix(7) allows.
                channel.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
            except OSError as error:
                raise EngineError(f"the supervisor of {run} does not answer: {error.strerror}") from error
            finally:
                os.close(directory)
            return cls(run, channel, undo.pop_all())

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet."""
        return self._undo is not None

    @property
    def is_ours(self) -> bool:
        """Whether this process has made it, and is no fork of the one that has."""
        return self._owner == os.getpid()

    def close(self) -> None:
        """End all that was made through it, and wait for the supervisor that it has started. Again: nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo.close()

    def leave(self) -> None:
        """Forget it in a fork of the process that has made it, where it may neither be used nor ended."""
        # Held, not run: it is for the process that this one is a fork of to wait for its supervisor.
        self._abandoned, self._undo = self._undo, None
        self._channel.close()
        os.close(self._log)
        os.close(self._memory)
        os.close(self.watch)

    def ask(self, message: tuple[object, ...], fds: tuple[int, ...] = ()) -> Answer:
        """Return the supervisor's answer to ``message``; raises EngineError where it has died."""
        self.check_open()
        with self._lock:
            try:
                # One that has died may have said why before.
                with contextlib.suppress(BrokenPipeError):
                    send(self._channel, message, fds)
                received = receive(self._channel)
            except ConnectionError:
                received = None
        if received is None:
            raise EngineError(
                "the supervisor of this run has died, and all its sandboxes with it", hint=self.last_words()
            )
        (word, *operands), got = received
        if word == "failed":
            raise _start_error(operands)
        return (word, *operands), got

    def tell(self, message: tuple[object, ...]) -> None:
        """Send a message that has no answer; to one that has died, nothing."""
        if self._undo is not None:
            with self._lock, contextlib.suppress(OSError):
                send(self._channel, message)

    def root_of(self, control: socket.socket, spec: SandboxSpec) -> int:
        """Return a descriptor of the root of a sandbox once its init says that it is ready; raises StartError."""
        try:
            received = receive(control)
        except ConnectionError:
            received = None
        if received is None:
            raise StartError(
                f"the init of a sandbox of {spec.image} died while it was being made", hint=self.last_words()
            )
        (word, *operands), fds = received
        if word == "failed":
            raise _start_error(operands, spec)
        return fds[0]

    def seen(self, path: str) -> str:
        """Return ``path``, which the supervisor's mount namespace has, as this process can reach it."""
        return path.replace(MEMORY, f"/proc/self/fd/{self._memory}", 1) if path.startswith(MEMORY) else path

    def last_words(self) -> str:
        """Return what the supervisor has logged last."""
        if self._undo is None:
            return ""
        size = os.fstat(self._log).st_size
        return os.pread(self._log, _LAST, max(size - _LAST, 0)).decode(errors="replace").strip()

    def check_open(self) -> None:
        """Raise SandboxClosedError where it was closed, EngineError in a fork."""
        if self._undo is None:
            raise SandboxClosedError("the engine was closed")
        if not self.is_ours:
            raise EngineError("the engine belongs to the process that opened it", hint="open one in the forked process")

    def _greet(self) -> tuple[int, int]:
        pidfd = os.pidfd_open(os.getpid())
        try:
            _, (memory, watch) = self.ask(("hello",), (pidfd,))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(pidfd)
        if self._undo is not None:
            self._undo.callback(os.close, memory)
            self._undo.callback(os.close, watch)
        return memory, watch


def _log_of(run: str) -> str:
    return os.path.join(run, "supervisor.log")


def _launch(run: str, channel: int, lock: int) -> subprocess.Popen[bytes]:
    mode = "root" if is_privileged() else subordinate_ids()
    writes_to = "disk" if can_be_upper(run) else "tmpfs"
    with open(_log_of(run), "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", _SUPERVISOR, str(channel), str(lock), run, mode, writes_to],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(channel, lock),
            env={"LD_BIND_NOW": "1"},
        )


def _await_end(supervisor: subprocess.Popen[bytes]) -> None:
    try:
        supervisor.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()


def _start_error(operands: list[Any], spec: SandboxSpec | None = None) -> SandboxError:
    step, call, code, subject = operands
    what = f"cannot make a sandbox of {spec.image}" if spec else "cannot make a sandbox"
    said = os.strerror(code) + (f" ({call} {subject})".replace("( ", "(") if call or subject else "")
    message, hint = f"{what}: could not {step}: {said}", explain(call, code)
    return EngineError(message, hint=hint) if step == START else StartError(message, hint=hint, code=code)
