"""PYTEST_DONT_REWRITE. Work on files of all the owners that an ordinary user has by subuid(5): in a user namespace.

Who is root, or has one user id, does it right here. Else a process beside this one, in a user namespace with the same
map as those of sandboxes, does it: there it is root, and what it makes for user 33 is user 33's in every sandbox.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
import threading
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pytest_sandbox_runtime.errors import SandboxError
from pytest_sandbox_runtime.trees import closing

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.images.digest import Readable

    Sink = Callable[[bytes], object]

_Result = TypeVar("_Result")
_CHUNK = 1 << 20
_FD = 3
# The package is where it is here; what it may need besides, where the interpreter has it.
_PACKAGES = __file__.rsplit("/", 3)[0]
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from pytest_sandbox_runtime.images import mapped; mapped.main()"
)
# Set in the other process.
_IS_HELPER = False


@functools.cache
def worker() -> Worker:
    """Return what does such work for this process."""
    from pytest_sandbox_runtime.capabilities import is_privileged
    from pytest_sandbox_runtime.state import subordinate_ids

    ids = "" if is_privileged() else subordinate_ids()
    return Helper(ids) if ids else Worker()


def needs_user_namespace() -> bool:
    """Whether overlays of this user are mounted in a user namespace; also where that is asked in one."""
    from pytest_sandbox_runtime.capabilities import is_privileged

    return _IS_HELPER or not is_privileged()


class Worker:
    """Does the work here."""

    def call(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Return ``function(*args)``, all of which pickles."""
        return function(*args)

    def read(self, function: Callable[..., _Result], source: Readable, *args: Any) -> _Result:
        """Return ``function(source, *args)``, where ``source`` is read to its end."""
        return function(source, *args)

    def write(self, function: Callable[..., _Result], sink: Sink, directory: str, *args: Any) -> _Result:
        """Return ``function(stream, directory, *args)``, where all that is written to ``stream`` goes to ``sink``.

        ``directory`` may be one that only this process can name.
        """
        return function(_Stream(sink), directory, *args)


class _Stream:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        self._sink(data)
        return len(data)


class Helper(Worker):
    """Has another process do the work, which is started when it is first needed, and ends with this one."""

    def __init__(self, ids: str) -> None:
        self._ids = ids
        self._lock = threading.Lock()
        self._owner = 0
        self._channel: socket.socket | None = None

    def call(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """See Worker."""
        with self._lock:
            self._send(function, args, "call", ())
            result: _Result = self._answer()
        return result

    def read(self, function: Callable[..., _Result], source: Readable, *args: Any) -> _Result:
        """See Worker."""
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        with self._lock, open(theirs, "wb", buffering=0) as pipe:
            try:
                self._send(function, args, "read", (ours,))
            finally:
                os.close(ours)
            try:
                _pump(source, pipe)
            except BaseException:
                # What it says of a stream cut short is of no interest; but it is said.
                with contextlib.suppress(Exception):
                    self._answer()
                raise
            result: _Result = self._answer()
        return result

    def write(self, function: Callable[..., _Result], sink: Sink, directory: str, *args: Any) -> _Result:
        """See Worker."""
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        with self._lock, open(ours, "rb", buffering=0) as pipe:
            try:
                self._send(function, args, "write", (theirs, place))
            finally:
                os.close(theirs)
                os.close(place)
            while data := pipe.read(_CHUNK):
                sink(data)
            result: _Result = self._answer()
        return result

    def _send(self, function: Callable[..., Any], args: tuple[Any, ...], how: str, fds: tuple[int, ...]) -> None:
        import pickle

        from pytest_sandbox_runtime.supervisor.messages import send

        if self._channel is None or self._owner != os.getpid():
            self._start()
        assert self._channel is not None
        send(self._channel, (pickle.dumps((function, args)), how), fds)

    def _start(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._owner = os.getpid()
        with theirs:
            argv = [sys.executable, "-I", "-c", _PROGRAM, _PACKAGES, str(_FD), self._ids]
            actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), _FD)]
            # Never waited for: it ends with this process.
            os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions)

    def _answer(self) -> Any:
        import pickle

        from pytest_sandbox_runtime.supervisor.messages import receive

        assert self._channel is not None
        received = receive(self._channel)
        if received is None:
            self._channel = None
            raise SandboxError("the process that works on files of other owners has died")
        ((data,), _) = received
        result, error = pickle.loads(data)  # type: ignore[arg-type]
        if error is not None:
            raise error
        return result


def _pump(source: Readable, pipe: IO[bytes]) -> None:
    try:
        while data := source.read(_CHUNK):
            view = memoryview(data)
            while view:
                view = view[pipe.write(view) :]
    except BrokenPipeError:
        return  # the other side has failed, and says how
    finally:
        pipe.close()


def main() -> None:
    """Be the other process, whose arguments are _PACKAGES, its socket and the ids."""
    global _IS_HELPER  # noqa: PLW0603  said once, at the start
    _IS_HELPER = True
    from pytest_sandbox_runtime.supervisor.identities import map_identities
    from pytest_sandbox_runtime.supervisor.messages import receive, send

    channel = socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(channel.fileno(), False)
    os.setsid()
    os.umask(0o022)
    map_identities(sys.argv[3])
    while (received := receive(channel)) is not None:
        (data, how), fds = received
        send(channel, (_done(data, str(how), fds),))


def _done(data: Any, how: str, fds: list[int]) -> bytes:
    import pickle

    try:
        function, args = pickle.loads(data)
        if how == "call":
            return pickle.dumps((function(*args), None))
        if how == "read":
            with open(fds[0], "rb", buffering=0) as source:
                return pickle.dumps((function(source, *args), None))
        with open(fds[0], "wb", buffering=_CHUNK) as stream, closing(fds[1]) as place:
            return pickle.dumps((function(stream, f"/proc/self/fd/{place}", *args), None))
    except Exception as error:
        # Carried to who asked.
        return pickle.dumps((None, error))
