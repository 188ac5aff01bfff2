"""PYTEST_DONT_REWRITE. A program that goes on while tests use it, and the sandbox that it runs in."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.checks import check_command, command_of, environment, parse_duration
from pytest_sandbox_runtime.specs.image import HOST, Image
from pytest_sandbox_runtime.specs.network import check_name
from pytest_sandbox_runtime.specs.ready import AllOf, Port, Ready
from pytest_sandbox_runtime.specs.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

_RESTART = re.compile(r"no|always|unless-stopped|(on-failure)(?::(\d+))?")
SHARES = ("test", "worker", "run")


@dataclass(frozen=True)
class Seed:
    """What fills a service once: a function of the live service, or a command in its sandbox; ``inputs`` are files."""

    act: Any
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Service:
    """A long-lived program in a sandbox of its own. Raises SpecError where a value cannot be right.

    ``command`` is the image's where it is left out. ``ready`` says when it may be used: where left out, when somebody
    listens at each of ``ports``, the ports inside. Those in ``depends_on`` are ready before it starts, and are found
    by their ``name``. ``share`` is who has the same one: each "test" its own, a "worker" of xdist, or the whole "run".
    ``restart`` is "no", "always", or "on-failure", with or without the most times as in "on-failure:3".
    ``url`` is how clients are told of it, with {host} and {port} where those of its first port go.
    ``timeout`` is how long it may take to be ready, and ``stop_timeout`` to end after ``stop_signal``, in seconds.
    ``tty`` has it on a terminal that nobody types on; with ``stdin_open`` its standard input has no end.
    ``sandbox`` are words of SandboxSpec.
    """

    image: Image = HOST
    command: Any = field(default=None, kw_only=True)
    name: str = field(default="", kw_only=True)
    ready: Ready | None = field(default=None, kw_only=True)
    ports: tuple[int, ...] = field(default=(), kw_only=True)
    env: Any = field(default=(), kw_only=True)
    depends_on: tuple[Service, ...] = field(default=(), kw_only=True)
    aliases: tuple[str, ...] = field(default=(), kw_only=True)
    share: str = field(default="test", kw_only=True)
    restart: str = field(default="no", kw_only=True)
    stop_signal: str | None = field(default=None, kw_only=True)
    stop_timeout: float = field(default=10, kw_only=True)
    timeout: float = field(default=60, kw_only=True)
    url: str = field(default="http://{host}:{port}/", kw_only=True)
    tty: bool = field(default=False, kw_only=True)
    stdin_open: bool = field(default=False, kw_only=True)
    sandbox: Any = field(default=(), kw_only=True)
    seeds: tuple[Seed, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.image, Image):
            hint = "for example Image.debian('bookworm').apt('redis-server')"
            raise SpecError(f"a service of {self.image!r}, which is no Image", hint=hint)
        if self.command is not None:
            self._set("command", command_of(self.command))
            check_command(self.command, "the command of a service")
        if self.name:
            check_name(self.name, "the name of a service")
        self._set("ports", tuple(Port(port).number for port in self.ports))
        self._set("env", tuple(sorted(environment(self.env))))
        self._set("depends_on", tuple(self.depends_on))
        self._set("aliases", tuple(self.aliases))
        for alias in self.aliases:
            check_name(alias, "a name by which a service could be found")
        self._set("sandbox", tuple(sorted(dict(self.sandbox).items())))
        self._check()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check(self) -> None:
        if self.ready is not None and not isinstance(self.ready, Ready):
            raise SpecError(f"ready={self.ready!r} is nothing to wait for", hint="for example ready.port(80)")
        if self.share not in SHARES:
            raise SpecError(f"share={self.share!r} is none of {', '.join(SHARES)}")
        for one in self.depends_on:
            if not isinstance(one, Service):
                raise SpecError(f"depends_on has {one!r}, which is no Service")
            if not one.name:
                raise SpecError(f"{one} has no name, by which what depends on it could find it", hint="give it name=")
        restart_of(self.restart)
        if self.stop_signal is not None:
            signal_of(self.stop_signal)
        for name in ("timeout", "stop_timeout"):
            self._set(name, parse_duration(getattr(self, name)))
        self.spec()

    def __str__(self) -> str:
        return f"service {self.name or self.image}"

    def spec(self) -> SandboxSpec:
        """Return what its sandbox is to be."""
        words = dict(self.sandbox)
        if self.name:
            words.setdefault("hostname", self.name)
        try:
            return SandboxSpec(image=self.image, env=self.env, **words)
        except TypeError as error:
            raise SpecError(f"sandbox={words!r} has words that no sandbox knows: {error}") from None

    def readiness(self) -> Ready | None:
        """Return what is waited for."""
        if self.ready is not None or not self.ports:
            return self.ready
        return AllOf(tuple(map(Port, self.ports)))

    def with_env(self, **variables: str) -> Self:
        """Copy this service with ``variables`` added to its environment."""
        return replace(self, env=tuple(sorted({**dict(self.env), **variables}.items())))

    def seed(
        self, act: Callable[[Any], object] | str | Sequence[str], *, inputs: Sequence[str | os.PathLike[str]] = ()
    ) -> Self:
        """Copy this service, to start as it is after ``act``: a function of the live service, or a command in it.

        Done once, and kept as a layer for as long as the image, the code of ``act`` and the content of ``inputs``,
        files or directories, stay the same.
        """
        if not callable(act):
            act = command_of(act)
            check_command(act, "the command of a seed")
        paths = tuple(os.path.abspath(path) for path in inputs)
        for path in paths:
            if not os.path.exists(path):
                raise SpecError(f"the input {path} of a seed is not there")
        return replace(self, seeds=(*self.seeds, Seed(act, paths)))


def restart_of(policy: str) -> tuple[bool, int] | None:
    """Return whether a service always starts again, and how often at most; None for never. Raises SpecError."""
    match = _RESTART.fullmatch(policy) if isinstance(policy, str) else None
    if match is None:
        raise SpecError(f"restart={policy!r} is no policy", hint="no, always, on-failure, or for example on-failure:3")
    if policy == "no":
        return None
    return match[1] is None, int(match[2]) if match[2] else -1


def signal_of(name: str) -> int:
    """Return the number of a signal, named with or without SIG; raises SpecError."""
    if name.isdigit():
        return int(name)
    found = signal.Signals.__members__.get(name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}")
    if found is None:
        raise SpecError(f"{name!r} is no signal", hint="for example SIGTERM or INT")
    return int(found)


def in_order(services: Sequence[Service]) -> tuple[Service, ...]:
    """Return ``services`` and all that they depend on, each once and behind that; SpecError for a cycle."""
    ordered: dict[Service, None] = {}

    def visit(service: Service, path: tuple[Service, ...]) -> None:
        if service in path:
            circle = " -> ".join(str(one.name) for one in (*path[path.index(service) :], service))
            raise SpecError(f"these services depend on each other: {circle}")
        if service not in ordered:
            for one in service.depends_on:
                visit(one, (*path, service))
            ordered[service] = None

    for service in services:
        visit(service, ())
    check_names(ordered)
    return tuple(ordered)


def check_names(services: Iterator[Service] | dict[Service, None]) -> None:
    """Raise SpecError where two have the same name."""
    names: dict[str, Service] = {}
    for service in services:
        if service.name and names.setdefault(service.name, service) != service:
            raise SpecError(f"two services have the name {service.name!r}", hint="each is found by its own")
