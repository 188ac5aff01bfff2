"""PYTEST_DONT_REWRITE. When a service is ready: ``ready.port(5432)``, ``ready.log("listening")`` and the like.

The module is the word: ``from pytest_sandbox import ready``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.checks import check_absolute, check_command, command_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Ready:
    """Something to wait for."""


@dataclass(frozen=True)
class Port(Ready):
    """Somebody listens at ``number``."""

    number: int
    protocol: str = "tcp"

    def __post_init__(self) -> None:
        if isinstance(self.number, bool) or not isinstance(self.number, int) or not 0 < self.number < 65536:
            raise SpecError(f"port {self.number!r} is no number from 1 to 65535")
        if self.protocol not in ("tcp", "udp"):
            raise SpecError(f"protocol={self.protocol!r} is neither tcp nor udp")

    def __str__(self) -> str:
        return f"port {self.number}/{self.protocol}"


@dataclass(frozen=True)
class Log(Ready):
    """The service has printed something that ``pattern``, a regular expression, is found in."""

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except (re.error, TypeError) as error:
            raise SpecError(f"{self.pattern!r} is no regular expression: {error}") from None

    def __str__(self) -> str:
        return f"{self.pattern!r} in its log"


@dataclass(frozen=True)
class Http(Ready):
    """A GET of ``path`` at ``port``, the first of the service's where it is None, is answered with ``status``."""

    path: str = "/"
    status: int = 200
    port: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path.startswith("/"):
            raise SpecError(f"the path {self.path!r} does not begin with /")

    def __str__(self) -> str:
        return f"status {self.status} of {self.path}" + (f" at port {self.port}" if self.port else "")


@dataclass(frozen=True)
class Command(Ready):
    """A command in the sandbox ends with status 0."""

    args: str | tuple[str, ...]

    def __post_init__(self) -> None:
        check_command(self.args, "the command of a readiness check")

    def __str__(self) -> str:
        return f"status 0 of {self.args if isinstance(self.args, str) else ' '.join(self.args)}"


@dataclass(frozen=True)
class File(Ready):
    """There is something at ``path``."""

    path: str

    def __post_init__(self) -> None:
        check_absolute(self.path, "the path to wait for")

    def __str__(self) -> str:
        return f"the file {self.path}"


@dataclass(frozen=True)
class Healthy(Ready):
    """The image's HEALTHCHECK says so."""

    def __str__(self) -> str:
        return "the image's health check"


@dataclass(frozen=True)
class AllOf(Ready):
    """Each of ``parts`` was seen."""

    parts: tuple[Ready, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)

    def __str__(self) -> str:
        return " and ".join(map(str, self.parts))


@dataclass(frozen=True)
class AnyOf(Ready):
    """One of ``parts`` was seen."""

    parts: tuple[Ready, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)

    def __str__(self) -> str:
        return " or ".join(map(str, self.parts))


def _check_parts(parts: tuple[Ready, ...]) -> None:
    if not parts or not all(isinstance(part, Ready) for part in parts):
        raise SpecError(f"{parts!r} is nothing to wait for", hint="for example ready.port(80), ready.log('started')")


def port(number: int, protocol: str = "tcp") -> Port:
    """Wait until somebody listens at a port."""
    return Port(number, protocol)


def log(pattern: str) -> Log:
    """Wait until the service has printed what a regular expression is found in."""
    return Log(pattern)


def http(path: str = "/", *, status: int = 200, port: int | None = None) -> Http:
    """Wait until a GET is answered with ``status``, at the service's first port where ``port`` is left out."""
    return Http(path, status, port)


def command(args: str | Sequence[str]) -> Command:
    """Wait until a command that runs in the service's sandbox ends with status 0."""
    return Command(command_of(args))


def file(path: str) -> File:
    """Wait until there is something at a path in the service's sandbox."""
    return File(path)


def healthy() -> Healthy:
    """Wait until the image's HEALTHCHECK is content."""
    return Healthy()


def all_of(*parts: Ready) -> AllOf:
    """Wait until each of ``parts`` was seen."""
    return AllOf(parts)


def any_of(*parts: Ready) -> AnyOf:
    """Wait until one of ``parts`` was seen."""
    return AnyOf(parts)
