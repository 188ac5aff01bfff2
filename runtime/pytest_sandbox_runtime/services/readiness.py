"""PYTEST_DONT_REWRITE. Waiting until a service is ready, and no longer than it lives."""

from __future__ import annotations

import http.client
import os
import re
import select
import time
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import CommandError, CommandNotFoundError, CommandTimeoutError, ServiceError
from pytest_sandbox_runtime.kernel.inotify import MODIFY, inotify_add_watch, inotify_init
from pytest_sandbox_runtime.listening import pause_after
from pytest_sandbox_runtime.specs.ready import AllOf, AnyOf, Command, File, Healthy, Http, Log, Port, Ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.process import Process
    from pytest_sandbox_runtime.sandbox import Sandbox

_LEAST_FOR_HTTP = 0.01
_PATIENCE_OF_A_TRY = 5.0
_TAIL = 20
_HINTS = {
    None: "give it more time with timeout=, or wait for something else",
    0: "a service stays in the foreground: a program that forks itself away has an option against it",
}


class Readiness:
    """What is known of a service that starts, or of a sandbox without one: which of its conditions were seen."""

    def __init__(
        self,
        sandbox: Sandbox,
        process: Process | None = None,
        log: str = os.devnull,
        ports: tuple[int, ...] = (),
        check: Ready | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._process = process
        self._log = log
        self._ports = ports
        # The command of the image's health check.
        self._health = check
        self._seen: set[Ready] = set()
        self._tried: dict[Ready, float] = {}
        self._kinds: dict[type[Ready], Callable[[Any], bool]] = {
            Port: lambda ready: self._sandbox.listeners.has(ready.number, ready.protocol),
            Log: lambda ready: re.search(ready.pattern, read_log(self._log)) is not None,
            Http: self._answers,
            Command: self._succeeds,
            File: lambda ready: self._sandbox.files.exists(ready.path),
            Healthy: lambda _: self._health is not None and self.holds(self._health),
            # Each of them, so that an error has those only that were not seen.
            AllOf: lambda ready: not [part for part in ready.parts if not self.holds(part)],
            AnyOf: lambda ready: any(self.holds(part) for part in ready.parts),
        }

    def wait(self, what: Ready | None, timeout: float, name: str) -> None:
        """Return when ``what`` was seen; raises ServiceError where that took too long, or the service has ended."""
        if what is None:
            return
        began = time.monotonic()
        changes = inotify_init()
        try:
            inotify_add_watch(changes, self._log, MODIFY)
            poll = select.poll()
            poll.register(changes, select.POLLIN)
            poll.register(self._sandbox.pidfd, select.POLLIN)
            if self._process is not None and self._process.poll() is None:
                poll.register(self._process.fileno(), select.POLLIN)
            while not self.holds(what):
                if self._process is not None and self._process.poll() is not None:
                    raise self._error(name, what, time.monotonic() - began)
                waited = time.monotonic() - began
                if waited >= timeout:
                    raise self._error(name, what, timeout)
                if poll.poll(pause_after(waited, timeout) * 1000):
                    _forget_changes(changes)
        finally:
            os.close(changes)

    def holds(self, ready: Ready) -> bool:
        """Return whether ``ready`` was ever seen."""
        if ready not in self._seen and self._kinds[type(ready)](ready):
            self._seen.add(ready)
        return ready in self._seen

    def _is_due(self, ready: Ready, pause: float) -> bool:
        now = time.monotonic()
        if now - self._tried.get(ready, 0) < pause:
            return False
        self._tried[ready] = now
        return True

    def _answers(self, ready: Http) -> bool:
        if not self._is_due(ready, _LEAST_FOR_HTTP):
            return False
        port = ready.port or next(iter(self._ports), 80)
        connection = http.client.HTTPConnection("localhost", port, timeout=_PATIENCE_OF_A_TRY)
        try:
            connection.sock = self._sandbox.connect(port, timeout=_PATIENCE_OF_A_TRY)
            connection.sock.settimeout(_PATIENCE_OF_A_TRY)
            connection.request("GET", ready.path)
            return connection.getresponse().status == ready.status
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _succeeds(self, ready: Command) -> bool:
        if not self._is_due(ready, _LEAST_FOR_HTTP):
            return False
        try:
            return self._sandbox.run(ready.args, timeout=_PATIENCE_OF_A_TRY).returncode == 0
        except CommandTimeoutError:
            return False
        except (CommandError, CommandNotFoundError) as error:
            raise ServiceError(f"the readiness check {ready} cannot run: {error.message}", hint=error.hint) from error

    def _error(self, name: str, what: Ready, seconds: float) -> ServiceError:
        missing = [part for part in _parts(what) if part not in self._seen]
        waited = " and ".join(map(str, missing)) or str(what)
        lines = [f"{name} was not ready after {seconds:.1f} s: waited for {waited}"]
        if self._process is not None:
            lines.append(f"its process {state_of(self._process)}")
        code = None if self._process is None else self._process.returncode
        if any(isinstance(part, Port) for part in missing) and code is None:
            lines.append(f"who listens there: {self._sandbox.listeners.said()}")
        if self._process is not None:
            lines.append(tail(self._log))
        return ServiceError("\n".join(lines), hint=_HINTS.get(code, ""))


def _parts(ready: Ready) -> list[Ready]:
    if isinstance(ready, (AllOf, AnyOf)):
        return [part for one in ready.parts for part in _parts(one)]
    return [ready]


def state_of(process: Process) -> str:
    """Return how a process is, as the end of a sentence that begins with it."""
    import signal

    code = process.poll()
    if code is None:
        return f"runs, as pid {process.pid} of its sandbox"
    if code >= 0:
        return f"has ended with status {code}"
    return f"was killed by {signal.Signals(-code).name}" + (", out of memory" if process.oom_killed else "")


def read_log(path: str, begin: int = 0) -> str:
    """Return what a service has printed behind the first ``begin`` bytes."""
    with open(path, "rb") as file:
        file.seek(begin)
        return file.read().decode("utf-8", "surrogateescape")


def tail(path: str) -> str:
    """Return the last lines that a service has printed, for an error."""
    lines = read_log(path).rstrip().splitlines()
    if not lines:
        return "it has printed nothing"
    shown = lines[-_TAIL:]
    return f"the last {len(shown)} lines that it printed:\n  " + "\n  ".join(shown)


def _forget_changes(changes: int) -> None:
    try:
        os.read(changes, 65536)
    except BlockingIOError:
        return
