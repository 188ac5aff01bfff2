"""PYTEST_DONT_REWRITE. The live handle of a service: its sandbox, and the program that goes on in it."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pytest_sandbox_runtime.errors import CommandTimeoutError, SandboxClosedError, ServiceError
from pytest_sandbox_runtime.handle import Handle
from pytest_sandbox_runtime.process import STDOUT
from pytest_sandbox_runtime.services.readiness import Readiness, read_log, state_of, tail
from pytest_sandbox_runtime.specs.ready import Command, Healthy, Ready
from pytest_sandbox_runtime.specs.service import restart_of, signal_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_sandbox_runtime.live_network import LiveNetwork
    from pytest_sandbox_runtime.process import Process
    from pytest_sandbox_runtime.sandbox import Sandbox
    from pytest_sandbox_runtime.specs.service import Service

    Config = dict[str, Any]


class Parts(NamedTuple):
    """What a service is put together from."""

    service: Service
    sandbox: Sandbox
    network: LiveNetwork | None
    process: Process
    config: Config
    log: str


class LiveService(Handle):
    """A service that is ready: only an Engine makes one. What it lacks its ``sandbox`` has; ``network`` is its own."""

    def __init__(self, parts: Parts, undo: ExitStack) -> None:
        self.service = parts.service
        self.sandbox = parts.sandbox
        self.network = parts.network
        self.process = parts.process
        self.dependencies: tuple[LiveService, ...] = ()
        self.parts = parts
        self._config = parts.config
        self._log = parts.log
        self._undo = undo.pop_all()

    def __repr__(self) -> str:
        return f"<LiveService {self.name} {'closed' if self._undo is None else self.process!r}>"

    @property
    def is_shared(self) -> bool:
        """Whether others use it, too, and it lives until the last of them closes it."""
        return self.service.share == "run"

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return str(self.service)

    def wait(self, what: Ready | None = None, timeout: float | None = None) -> None:
        """Wait for ``what``, the service's own readiness where it is None; raises ServiceError."""
        ports = self.service.ports
        readiness = Readiness(self.sandbox, self.process, self._log, ports, self._health())
        what = what or self.service.readiness()
        readiness.wait(what, self.service.timeout if timeout is None else timeout, self.name)

    def _health(self) -> Ready | None:
        return health_of(self._config)

    # What a test asks of it

    @property
    def ip(self) -> str:
        """Its address on its network."""
        return self.sandbox.ip

    def run(self, args: Any, **words: Any) -> Any:
        """Run a command beside it: see Sandbox.run."""
        return self.sandbox.run(args, **words)

    def address(self, port: int | None = None, **words: Any) -> tuple[str, int]:
        """Return where ``port``, its first where left out, is to be had on this machine: see Sandbox.address."""
        return self.sandbox.address(self.port if port is None and "path" not in words else port, **words)

    def url(self, path: str = "", *, inside: bool = False) -> str:
        """Return its URL on this machine, with ``path`` behind it; or ``inside``, for others on its network."""
        host, port = (self.ip, self.port) if inside else self.address()
        return self.service.url.format(host=host, port=port) + path.removeprefix("/")

    def connect(self, port: int | None = None, **words: Any) -> Any:
        """Return a connected socket: see Sandbox.connect."""
        return self.sandbox.connect(port or self.port, **words)

    @property
    def port(self) -> int:
        """Its first port, inside."""
        if not self.service.ports:
            raise ServiceError(f"{self.name} has no ports", hint="declare them: Service(..., ports=[80])")
        return self.service.ports[0]

    def logs(self) -> str:
        """Return all that it has printed."""
        return read_log(self._log)

    @property
    def log_size(self) -> int:
        """How many bytes it has printed."""
        return os.stat(self._log).st_size

    def logs_since(self, size: int) -> str:
        """Return what it has printed behind its first ``size`` bytes."""
        return read_log(self._log, size)

    def tail(self) -> str:
        """Return the last lines that it has printed, for an error to say."""
        return tail(self._log)

    def check(self) -> None:
        """Raise ServiceError where it has ended."""
        if self.process.poll() is not None:
            raise ServiceError(f"{self.name} is gone: its process {state_of(self.process)}\n{tail(self._log)}")

    # Its end

    @property
    def stop_signal(self) -> int:
        """The number of the signal that asks it to end: the declaration's, else the image's, else SIGTERM."""
        return signal_of(str(self.service.stop_signal or self._config.get("StopSignal") or "SIGTERM"))

    def stop(self) -> int:
        """Ask it to end, kill it where it does not within its stop_timeout, and return how it ended.

        Its files stay as they are, and so does its sandbox.
        """
        self.process.send_signal(self.stop_signal)
        try:
            return self.process.wait(self.service.stop_timeout)
        except CommandTimeoutError:
            self.process.kill_group()
            return self.process.wait()

    def restart(self) -> None:
        """Stop it, start it anew on the files as they are, and wait until it is ready."""
        if self._undo is None:
            raise SandboxClosedError(f"{self.name} was closed")
        if self.is_shared:
            raise ServiceError(
                f"{self.name} is shared by the whole run, and cannot be started anew by one of its users"
            )
        self.stop()
        self.process = launch(self.service, self.sandbox, self._config, self._log, self._undo)
        self.wait()

    def depend_on(self, others: Iterable[LiveService]) -> None:
        """Have ``others`` end behind it, the last first."""
        self.dependencies = tuple(others)
        with ExitStack() as undo:
            for one in self.dependencies:
                undo.callback(one.close)
            self.own(undo)

    def let_go(self) -> None:
        """Forget it, and those that it depends on, without ending them: the supervisor has them now."""
        for one in (self, *self.dependencies):
            if one._undo is not None:
                one._undo.pop_all()
                one._undo = None
            one.process.let_go()
            one.sandbox.let_go()

    def close(self) -> None:
        """Kill it and forget its files. Again: nothing."""
        is_open = self._undo is not None
        super().close()
        if is_open and not self.is_shared:
            with suppress(OSError):
                os.unlink(self._log)


def launch(service: Service, sandbox: Sandbox, config: Config, log: str, undo: ExitStack) -> Process:
    """Start the program of ``service``, which prints into the file ``log``; ``undo`` ends it."""
    with open(log, "ab", 0) as output, ExitStack() as closing:
        stdin = closing.enter_context(_endless_input()) if service.stdin_open else None
        process = sandbox.popen(
            command_of(service, config),
            stdin=stdin,
            stdout=output,
            stderr=STDOUT,
            restart=restart_of(service.restart),
            tty=service.tty,
        )
    undo.callback(process.close)
    return process


def _endless_input() -> IO[bytes]:
    """Return a pipe that nobody writes to, and that never ends: who has it to read has it to write, too."""
    read, write = os.pipe()
    try:
        return open(f"/proc/self/fd/{read}", "r+b", 0)
    finally:
        os.close(read)
        os.close(write)


def command_of(service: Service, config: Config) -> Any:
    """Return what ``service`` runs, on an image with ``config``; raises ServiceError where that is nothing."""
    if service.command is not None:
        return service.command
    argv = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    if not argv:
        hint = "give the service a command=, or the image an .entrypoint() or a .cmd()"
        raise ServiceError(f"{service} has no command, and neither has its image", hint=hint)
    return argv


def health_of(config: Config) -> Ready | None:
    """Return the command of an image's HEALTHCHECK as something to wait for."""
    test = (config.get("Healthcheck") or {}).get("Test") or ["NONE"]
    if test[0] == "CMD":
        return Command(tuple(test[1:]))
    if test[0] == "CMD-SHELL":
        return Command(test[1])
    return None


def needs_health(ready: Ready | None) -> bool:
    """Return whether ``ready`` asks for a health check."""
    return isinstance(ready, Healthy) or any(map(needs_health, getattr(ready, "parts", ())))
