"""PYTEST_DONT_REWRITE. Layers that change an image's configuration and, but for Workdir, no file."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.checks import check_command, check_text, environment, parse_duration

_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_REAL_TIME = re.compile(r"RTMIN(\+\d+)?|RTMAX(-\d+)?")


@dataclass(frozen=True, kw_only=True)
class Author:
    """Who the image is by: in OCI's words a field beside the configuration, which MAINTAINER sets."""

    name: str

    def __post_init__(self) -> None:
        check_text(self.name, "the author")


@dataclass(frozen=True, kw_only=True)
class Env:
    """Variables of every later step and of every command, in their order."""

    variables: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        environment(self.variables)


@dataclass(frozen=True, kw_only=True)
class Workdir:
    """The directory of every later step and of every command, made where it is missing; relative to the one before."""

    path: str

    def __post_init__(self) -> None:
        check_text(self.path, "the workdir")


@dataclass(frozen=True, kw_only=True)
class User:
    """Who later steps and commands run as: a name or number, with or without a group behind a colon; "" is root."""

    user: str

    def __post_init__(self) -> None:
        check_text(self.user, "the user", empty=True)


@dataclass(frozen=True, kw_only=True)
class Cmd:
    """What a sandbox runs if it is told nothing else; a string is for the shell in force, and () for nothing."""

    command: str | tuple[str, ...]

    def __post_init__(self) -> None:
        check_command(self.command, "the command", empty=True)


@dataclass(frozen=True, kw_only=True)
class Entrypoint:
    """What every command is an argument of. Without a Cmd among the layers before it, it unsets the base's."""

    command: str | tuple[str, ...]

    def __post_init__(self) -> None:
        check_command(self.command, "the entrypoint", empty=True)


@dataclass(frozen=True, kw_only=True)
class Expose:
    """Ports that the image's commands listen on: "80/tcp", "8000-8010/udp"."""

    ports: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ports", tuple(_normal_ports(port) for port in self.ports))

    def each(self) -> list[str]:
        """Return the ports one by one, ranges taken apart."""
        found = []
        for port in self.ports:
            numbers, _, protocol = port.partition("/")
            first, _, last = numbers.partition("-")
            found += [f"{number}/{protocol}" for number in range(int(first), int(last or first) + 1)]
        return found


@dataclass(frozen=True, kw_only=True)
class Label:
    """Names and values that the image carries."""

    labels: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        for name, value in self.labels:
            check_text(name, "a label's name")
            check_text(value, f"the label {name} has", empty=True)


@dataclass(frozen=True, kw_only=True)
class Healthcheck:
    """The command that says whether a service is well, and how often, in seconds; None for no check at all."""

    command: str | tuple[str, ...] | None
    interval: float | None = None
    timeout: float | None = None
    start_period: float | None = None
    start_interval: float | None = None
    retries: int | None = None

    def __post_init__(self) -> None:
        times = ("interval", "timeout", "start_period", "start_interval")
        if self.command is not None:
            check_command(self.command, "the health check")
        elif any(getattr(self, name) is not None for name in (*times, "retries")):
            raise SpecError("without a health check there is nothing to time", hint="leave the other arguments out")
        for name in times:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, parse_duration(getattr(self, name)))
        if self.retries is not None and (isinstance(self.retries, bool) or self.retries < 0):
            raise SpecError(f"retries={self.retries!r} is no number of times")


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Directories whose content is not the image's."""

    paths: tuple[str, ...]

    def __post_init__(self) -> None:
        for path in self.paths:
            check_text(path.strip(), "the volume")


@dataclass(frozen=True, kw_only=True)
class StopSignal:
    """What a command is told to stop by: "SIGTERM", "QUIT" or a number."""

    signal: str

    def __post_init__(self) -> None:
        check_text(self.signal, "the stop signal")
        name = self.signal.upper().removeprefix("SIG")
        number = int(name) if name.isascii() and name.isdigit() else None
        if number is not None and 0 < number < signal.NSIG:
            return
        if number is not None or not (f"SIG{name}" in signal.Signals.__members__ or _REAL_TIME.fullmatch(name)):
            raise SpecError(f"{self.signal!r} is no signal", hint='for example "SIGTERM", "QUIT" or 15')


@dataclass(frozen=True, kw_only=True)
class Shell:
    """The argv that lines for a shell are put behind, in later layers."""

    command: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.command, str):
            raise SpecError(f"the shell {self.command!r} is no argv", hint='for example ["/bin/bash", "-c"]')
        check_command(self.command, "the shell")


@dataclass(frozen=True, kw_only=True)
class OnBuild:
    """A Dockerfile's instruction that is carried out where a Dockerfile starts from the image."""

    trigger: str

    def __post_init__(self) -> None:
        check_text(self.trigger, "the trigger")


def _normal_ports(port: object) -> str:
    match = _PORTS.fullmatch(str(port))
    if match is None or isinstance(port, bool):
        raise SpecError(f"{port!r} is no port", hint='for example 80, "53/udp" or "8000-8010"')
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last < 1 << 16:
        raise SpecError(f"the ports {port} are not from low to high and below 65536")
    return f"{first}{f'-{last}' if last > first else ''}/{(match[3] or 'tcp').lower()}"
