"""PYTEST_DONT_REWRITE. PID 1 of a sandbox: starts commands on request, reaps whatever dies, and says how it died.

Each request for a command brings a socket of its own, on which all that concerns this command is said: ``started``,
``failed`` and ``exited``. When the sandbox dies that socket ends without an ``exited``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource  # noqa: F401  os.wait4 loads it, when the host's files are out of reach
import select
import termios
import time

from pytest_sandbox_runtime.kernel.light import signal, socket
from pytest_sandbox_runtime.kernel.processes import block, signalfd
from pytest_sandbox_runtime.supervisor.messages import receive, send
from pytest_sandbox_runtime.supervisor.terminals import Terminals, open_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_READY = select.POLLIN | select.POLLHUP
_ENDING = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGQUIT)
_FIRST_DELAY, _MOST_DELAY = 0.1, 60.0
# Python ignores some signals, and who started pytest may ignore others; a command begins with none ignored.
_DEFAULTS = tuple(number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP))


class Init:
    """The commands of one sandbox, and who wants to know of their end."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._waiting: dict[int, socket.socket] = {}
        self._kept: dict[int, Kept] = {}
        # Commands that start again, each at a moment of time.monotonic.
        self._due: list[tuple[float, Kept, socket.socket]] = []
        self._poll = select.poll()
        self._terminals = Terminals(self._poll)
        self._requests: dict[str, Callable[..., None]] = {
            "exec": self._exec,
            "signal": self._signal,
            "connect": self._connect,
            "socket": self._socket,
            "kill_all": self._kill_all,
        }

    def serve(self) -> int:
        """Serve until the last client has gone; returns init's exit status."""
        block([signal.SIGCHLD])
        deaths = signalfd([signal.SIGCHLD])
        self._poll.register(deaths, select.POLLIN)
        self._poll.register(self._control, select.POLLIN)
        while True:
            for fd, _ in self._poll.poll(self._start_due()):
                if fd == deaths:
                    os.read(deaths, 4096)
                    self._reap()
                elif fd != self._control.fileno():
                    self._terminals.move(fd)
                elif not self._answer():
                    return 0

    def _answer(self) -> bool:
        received = receive(self._control)
        if received is None:
            return False
        (word, *operands), fds = received
        try:
            self._requests[str(word)](*operands, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _exec(self, command: tuple[object, ...], fds: list[int]) -> None:
        reply = socket.socket(fileno=os.dup(fds[0]))
        try:
            pid, master = self._start(command, fds[1:])
        except OSError as error:
            _tell(reply, ("failed", error.errno or 0, os.fsdecode(error.filename or "")))
            reply.close()
            return
        self._waiting[pid] = reply
        restart = command[5]
        if restart is not None:
            self._kept[pid] = Kept(pid, command, [os.dup(fd) for fd in fds[1:]], *restart)  # type: ignore[misc]
        _tell(reply, ("started", pid), () if master is None else (master,))
        if master is not None:
            os.close(master)

    def _start(self, command: tuple[object, ...], streams: list[int]) -> tuple[int, int | None]:
        """Start a command: see ``start``; where it has streams beside a terminal, what it prints goes to the second."""
        pid, master = start(command, streams)
        if master is not None and streams:
            self._terminals.add(pid, master, streams[1])
            master = None
        return pid, master

    def _signal(self, pid: int, number: int, group: bool, fds: list[int]) -> None:  # noqa: FBT001, ARG002
        if number in _ENDING:
            self._let_end(pid)
        try:
            if group:
                os.killpg(pid, number)
            elif pid in self._waiting:
                os.kill(pid, number)
        except ProcessLookupError:
            pass

    def _let_end(self, pid: int) -> None:
        """Start a command no more whose client wants it to end, as it is with Docker."""
        if pid in self._kept:
            self._kept.pop(pid).close()
        for entry in [one for one in self._due if one[1].pid == pid]:
            self._due.remove(entry)
            _, kept, reply = entry
            kept.close()
            _tell(reply, ("exited", kept.status, 0.0))
            reply.close()

    def _kill_all(self, fds: list[int]) -> None:
        reply = socket.socket(fileno=os.dup(fds[0]))
        try:
            os.kill(-1, signal.SIGKILL)  # everybody but this process: kill(2)
            while True:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
                self._reap()
        except (ProcessLookupError, ChildProcessError):
            _tell(reply, ("killed",))
        reply.close()

    def _connect(self, family: int, kind: int, address: object, fds: list[int]) -> None:
        reply, wanted = socket.socket(fileno=os.dup(fds[0])), socket.socket(family, kind)
        wanted.setblocking(False)
        # Who waits for the connection is the client: init has other commands to look after.
        code = wanted.connect_ex(address)  # type: ignore[arg-type]
        if code in (0, errno.EINPROGRESS):
            _tell(reply, ("connecting",), (wanted.fileno(),))
        else:
            _tell(reply, ("failed", code, ""))
        wanted.close()
        reply.close()

    def _socket(self, family: int, kind: int, protocol: int, fds: list[int]) -> None:
        reply = socket.socket(fileno=os.dup(fds[0]))
        try:
            wanted = socket.socket(family, kind, protocol)
        except OSError as error:
            _tell(reply, ("failed", error.errno, ""))
        else:
            _tell(reply, ("made",), (wanted.fileno(),))
            wanted.close()
        reply.close()

    def _start_due(self) -> float | None:
        """Start what is due, and return the milliseconds until more is."""
        now = time.monotonic()
        for entry in [one for one in self._due if one[0] <= now]:
            self._due.remove(entry)
            _, kept, reply = entry
            try:
                pid, _ = self._start(kept.command, kept.fds)
            except OSError:
                kept.close()
                _tell(reply, ("exited", 127, 0.0))
                reply.close()
                continue
            kept.pid = pid
            self._waiting[pid], self._kept[pid] = reply, kept
            _tell(reply, ("restarted", pid))
        return max(1, (min(one[0] for one in self._due) - now) * 1000) if self._due else None

    def _reap(self) -> None:
        for pid, status, usage in _dead():
            self._terminals.end(pid)
            reply, kept = self._waiting.pop(pid, None), self._kept.pop(pid, None)
            if reply is not None and kept is not None and kept.goes_on(os.waitstatus_to_exitcode(status)):
                self._due.append((time.monotonic() + kept.delay(), kept, reply))
            elif reply is not None:
                if kept is not None:
                    kept.close()
                _tell(reply, ("exited", os.waitstatus_to_exitcode(status), usage))
                reply.close()


class Kept:
    """A command that starts again when it has ended: ``always``, or where it failed; ``left`` times, -1 for ever."""

    def __init__(
        self,
        pid: int,
        command: tuple[object, ...],
        fds: list[int],
        always: bool,  # noqa: FBT001
        left: int,
    ) -> None:
        self.pid = pid
        self.status = 0
        self.command = command
        self.fds = fds
        self._always = always
        self._left = left
        self._delay = _FIRST_DELAY

    def goes_on(self, status: int) -> bool:
        """Return whether it starts again after it has ended with ``status``."""
        self.status = status
        if self._left == 0 or not (self._always or status != 0):
            return False
        self._left -= 1
        return True

    def delay(self) -> float:
        """Return in how many seconds, each time twice as many, as Docker does."""
        delay, self._delay = self._delay, min(self._delay * 2, _MOST_DELAY)
        return delay

    def close(self) -> None:
        """Let go of its streams."""
        for fd in self.fds:
            os.close(fd)


def serve(control: socket.socket) -> int:
    """Be init: see Init.serve."""
    return Init(control).serve()


def _tell(reply: socket.socket, message: tuple[object, ...], fds: tuple[int, ...] = ()) -> None:
    try:
        send(reply, message, fds)
    except OSError:
        # Nobody listens any more: the client has died or has lost interest.
        return


def _dead() -> Iterator[tuple[int, int, float]]:
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status, usage.ru_utime + usage.ru_stime


def start(command: tuple[object, ...], fds: list[int]) -> tuple[int, int | None]:
    """Start a command; returns its pid, and the terminal's master where it has one. Raises OSError.

    ``command`` is argv, environment, working directory, (uid, gid, groups) or None for our own, the rows and columns
    of its terminal or None, and how it starts again or None; ``fds`` are its standard streams, without a terminal.
    """
    argv, env, workdir, user, window, _ = command
    if window is not None:
        master, slave = open_terminal(*window)  # type: ignore[misc]
        try:
            _give(slave, user)  # type: ignore[arg-type]
            return _fork(argv, env, workdir, user, [slave] * 3, terminal=True), master  # type: ignore[arg-type]
        except OSError:
            os.close(master)
            raise
        finally:
            os.close(slave)
    if user is not None:
        return _fork(argv, env, workdir, user, fds, terminal=False), None  # type: ignore[arg-type]
    return _spawn(argv, env, workdir, fds), None  # type: ignore[arg-type]


def _give(terminal: int, user: tuple[int, int, list[int]] | None) -> None:
    """Let ``user`` open the terminal again, as /dev/stdout."""
    if user is not None:
        try:  # noqa: SIM105  contextlib is not needed here otherwise
            os.fchown(terminal, user[0], -1)
        except OSError:
            pass  # with one mapped id there is nobody else


def _candidates(program: bytes, env: dict[bytes, bytes]) -> Iterator[bytes]:
    if b"/" in program:
        yield program
        return
    for folder in env.get(b"PATH", b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").split(b":"):
        path = b"%s/%s" % (folder or b".", program)
        # An attempt to start what is not there costs a process.
        if os.access(path, os.F_OK, follow_symlinks=False):
            yield path


def _first_that_starts(argv: list[bytes], env: dict[bytes, bytes], attempt: Callable[[bytes], int]) -> int:
    denied: OSError | None = None
    for path in _candidates(argv[0], env):
        try:
            return attempt(path)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.lexists(path) and not os.path.isdir(path):
                # It is there: what is missing is the interpreter that it names, or its loader.
                raise OSError(errno.ENOEXEC, "", path) from None
        except PermissionError:
            denied = OSError(errno.EACCES, "", path)
    raise denied or FileNotFoundError(errno.ENOENT, "", argv[0])


def _spawn(argv: list[bytes], env: dict[bytes, bytes], workdir: bytes, fds: list[int]) -> int:
    # posix_spawn(3) shares memory until the exec: a third of the price of a fork, and it says what went wrong.
    _enter(workdir)
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)]
    return _first_that_starts(
        argv,
        env,
        lambda path: os.posix_spawn(
            path, argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULTS
        ),
    )


def _enter(workdir: bytes) -> None:
    try:
        os.chdir(workdir)
    except OSError as error:
        # Told apart from a missing program by its subject.
        raise OSError(error.errno, "", b"workdir:" + workdir) from None


def _fork(
    argv: list[bytes],
    env: dict[bytes, bytes],
    workdir: bytes,
    user: tuple[int, int, list[int]] | None,
    fds: list[int],
    *,
    terminal: bool,
) -> int:
    failures, said = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _exec_or_tell(said, argv, env, workdir, user, fds, terminal=terminal)
    os.close(said)
    try:
        told = os.read(failures, 4096)
    finally:
        os.close(failures)
    if told:
        os.waitpid(pid, 0)
        code, _, subject = told.partition(b" ")
        raise OSError(int(code), "", subject)
    return pid


def _exec_or_tell(
    said: int,
    argv: list[bytes],
    env: dict[bytes, bytes],
    workdir: bytes,
    user: tuple[int, int, list[int]] | None,
    fds: list[int],
    *,
    terminal: bool,
) -> None:
    try:
        os.setsid()
        if terminal:
            fcntl.ioctl(fds[0], termios.TIOCSCTTY, 0)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        if user is not None:
            become(*user)
        _enter(workdir)
        for number in _DEFAULTS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _first_that_starts(argv, env, lambda path: os.execve(path, argv, env))  # noqa: S606
    except OSError as error:
        subject = error.filename if isinstance(error.filename, bytes) else os.fsdecode(error.filename or "").encode()
        os.write(said, b"%d %s" % (error.errno or 0, subject))
    finally:
        os._exit(127)


def become(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Make this process run as ``uid``, for good."""
    try:
        os.setgroups(list(groups))
    except PermissionError:
        # One mapped id: setgroups(2) is denied, and the groups cannot be had.
        if set(groups) - {gid}:
            raise
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
