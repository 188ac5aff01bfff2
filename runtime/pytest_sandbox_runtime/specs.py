"""Frozen declarations: what to run, on what, within which limits. Nothing in here knows whether it runs.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import re
import shlex
import signal
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from typing_extensions import Self

MIN_MEMORY = 4 << 20
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_NETWORKS = ("none", "host")


def parse_size(size: str | float) -> int:
    """Return the bytes that ``size`` stands for: a number, or one with k, m, g or t behind it (powers of 1024)."""
    match = _SIZE.fullmatch(str(size).strip())
    if isinstance(size, bool) or match is None:
        raise SpecError(f"{size!r} is no size", hint='write a positive number of bytes, or for example "256M"')
    return int(float(match[1]) * _UNITS[match[2].lower()])


@dataclass(frozen=True)
class Image:
    """What a sandbox's root file system starts as. ``kind`` is ``host`` or ``archive``."""

    kind: str = "host"
    path: str | None = None

    @classmethod
    def host(cls) -> Self:
        """Return this very machine, copy-on-write, without its secrets and doors."""
        return cls()

    @classmethod
    def archive(cls, path: str | os.PathLike[str]) -> Self:
        """Return the root file system in ``path``: a directory, or a tar (plain, gzip, bzip2 or xz)."""
        return cls("archive", os.path.abspath(path))

    def __str__(self) -> str:
        return "the host" if self.path is None else self.path


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A file or directory of the host that is seen in the sandbox; read-only unless it says otherwise."""

    source: str
    target: str
    read_only: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", os.path.abspath(self.source))
        if not os.path.isabs(self.target) or ".." in self.target.split("/"):
            raise SpecError(f"mount target {self.target!r} is no absolute path without ..")


def _pairs(env: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> tuple[tuple[str, str], ...]:
    pairs = dict(env or ())
    for name, value in pairs.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
            raise SpecError(
                f"env has {name!r}: {value!r}, which no environment can hold",
                hint="names and values are strings, names without =",
            )
    return tuple(sorted(pairs.items()))


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """What to start. ``memory`` in bytes or as "256M", ``cpus`` in processors, ``timeout`` in seconds for each command.

    Raises SpecError where a value cannot be right.
    """

    image: Image = Image()
    network: str = "none"
    env: Any = ()
    mounts: tuple[Mount, ...] = ()
    memory: Any = None
    cpus: float | None = None
    pids: int | None = None
    user: str | int | None = None
    workdir: str | None = None
    hostname: str = "sandbox"
    read_only: bool = False
    timeout: float | None = None
    time_namespace: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.image, Image):
            raise SpecError(
                f"image={self.image!r} is no Image", hint="for example Image.host() or Image.archive('root.tar')"
            )
        object.__setattr__(self, "env", _pairs(self.env))
        object.__setattr__(self, "mounts", tuple(self.mounts))
        if self.memory is not None:
            object.__setattr__(self, "memory", parse_size(self.memory))
        self._check_limits()
        self._check_words()

    def _check_limits(self) -> None:
        if self.memory is not None and self.memory < MIN_MEMORY:
            msg = f"memory={self.memory} is less than the {MIN_MEMORY} bytes that init itself needs"
            raise SpecError(msg, hint="leave memory out for no limit")
        for name in ("cpus", "pids", "timeout"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0):
                raise SpecError(f"{name}={value!r} is not more than 0", hint=f"leave {name} out for no limit")
        if isinstance(self.pids, float):
            raise SpecError(f"pids={self.pids!r} is no whole number")

    def _check_words(self) -> None:
        if self.network not in _NETWORKS:
            raise SpecError(f"network={self.network!r} is none of {', '.join(_NETWORKS)}")
        if not isinstance(self.hostname, str) or not _HOSTNAME.fullmatch(self.hostname):
            raise SpecError(f"hostname={self.hostname!r} is no host name", hint="letters, digits, - and ., at most 64")
        if self.workdir is not None and not os.path.isabs(self.workdir):
            raise SpecError(f"workdir={self.workdir!r} is not absolute")
        for mount in self.mounts:
            if not isinstance(mount, Mount):
                raise SpecError(f"mounts has {mount!r}, which is no Mount")

    def with_env(self, **variables: str) -> Self:
        """Copy this spec with ``variables`` added."""
        return replace(self, env=tuple(sorted({**dict(self.env), **variables}.items())))


SPEC_FIELDS = tuple(field.name for field in fields(SandboxSpec))


@dataclass(frozen=True)
class Outcome:
    """A command that has ended. ``returncode`` as subprocess has it: the exit status, or minus the signal's number."""

    args: list[str] | str
    returncode: int
    stdout: Any = ""
    stderr: Any = ""
    duration: float = 0.0
    oom_killed: bool = False

    def command(self) -> str:
        """Return the command as it could be pasted into a shell."""
        return self.args if isinstance(self.args, str) else shlex.join(self.args)

    def tail(self, lines: int = 20) -> str:
        """Return the last ``lines`` of what it printed, errors last."""
        text = "".join(
            part if isinstance(part, str) else part.decode(errors="replace")
            for part in (self.stdout, self.stderr)
            if part
        )
        return "\n".join(text.splitlines()[-lines:])

    def __str__(self) -> str:
        if self.oom_killed:
            return f"{self.command()} was killed by the kernel, out of memory"
        if self.returncode < 0:
            return f"{self.command()} was killed by {_signal_name(-self.returncode)}"
        return f"{self.command()} ended with exit status {self.returncode}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
