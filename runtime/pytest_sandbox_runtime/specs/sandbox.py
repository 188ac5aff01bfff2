"""PYTEST_DONT_REWRITE. What to start, on what, within which limits."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.checks import environment, parse_size
from pytest_sandbox_runtime.specs.confinement import added, dropped, hosts_of, ulimits_of
from pytest_sandbox_runtime.specs.image import HOST, Image
from pytest_sandbox_runtime.specs.network import Network

if TYPE_CHECKING:
    from typing import TypeGuard

    from typing_extensions import Self

MIN_MEMORY = 4 << 20
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_NETWORKS = ("none", "host")
DEFAULT_HOSTNAME = "sandbox"


@dataclass(frozen=True)
class Volume:
    """A directory that all sandboxes of a run share that mount one of this ``name``; it begins as ``source`` is."""

    name: str
    source: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _VOLUME.fullmatch(self.name):
            hint = "letters, digits, -, _ and ., at most 128"
            raise SpecError(f"{self.name!r} is no name of a volume", hint=hint)
        if self.source is not None:
            object.__setattr__(self, "source", os.path.abspath(self.source))
            if not os.path.isdir(str(self.source)):
                raise SpecError(f"the volume {self.name} is to begin as {self.source}, which is no directory")


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A file or directory of the host, or a Volume, that is seen in the sandbox.

    Of the host it is read-only, and a volume is not, unless ``read_only`` says otherwise. Of a directory or a volume
    ``subpath`` is what is seen; no link in it leads out. With ``copy`` a directory of the host is copied on write: what
    is changed there is the sandbox's own, and gone with it.
    """

    source: str | Volume
    target: str
    read_only: Any = None
    subpath: str = ""
    copy: bool = False

    def __post_init__(self) -> None:
        is_volume = isinstance(self.source, Volume)
        if self.copy and (is_volume or self.read_only is not None or self.subpath):
            raise SpecError(f"mount of {self.source}: copy=True is for a directory of the host, and goes with no more")
        if not is_volume:
            object.__setattr__(self, "source", os.path.abspath(self.source))  # type: ignore[type-var]
        if self.read_only is None:
            object.__setattr__(self, "read_only", not is_volume)
        if os.path.isabs(self.subpath) or ".." in self.subpath.split("/"):
            raise SpecError(f"subpath={self.subpath!r} is no path below {self.source}")
        _check_target(self.target)


@dataclass(frozen=True, kw_only=True)
class Tmpfs:
    """An empty directory in memory; ``size`` in bytes or as "64M", None for half of the machine's memory.

    ``mode`` are its permissions; ``uid`` and ``gid`` whose it is; what is in it can be run where it is ``executable``.
    """

    target: str
    size: Any = None
    mode: int = 0o1777
    uid: int = 0
    gid: int = 0
    read_only: bool = False
    executable: bool = True

    def __post_init__(self) -> None:
        _check_target(self.target)
        if self.size is not None:
            object.__setattr__(self, "size", parse_size(self.size))


def _published(ports: Any) -> tuple[tuple[int, str, int], ...]:
    """Return each port with its protocol, and the one that it has on this machine."""
    published = []
    for inside, outside in [pair if len(pair) == 2 else (f"{pair[0]}/{pair[1]}", pair[2]) for pair in _pairs(ports)]:
        number, _, protocol = str(inside).partition("/")
        protocol = protocol or "tcp"
        if protocol not in ("tcp", "udp"):
            raise SpecError(f"ports has {inside!r}, whose protocol is neither tcp nor udp")
        if not (_is_port(number) and _is_port(outside)):
            raise SpecError(f"ports has {inside!r}: {outside!r}, which are no numbers from 1 to 65535")
        published.append((int(number), protocol, int(outside)))
    return tuple(published)


def _pairs(ports: Any) -> list[tuple[Any, ...]]:
    return list(ports.items()) if isinstance(ports, dict) else [tuple(pair) for pair in ports]


def _is_port(number: Any) -> bool:
    return not isinstance(number, bool) and str(number).isdecimal() and 0 < int(number) < 65536


def _check_target(target: str) -> None:
    if not os.path.isabs(target) or ".." in target.split("/"):
        raise SpecError(f"mount target {target!r} is no absolute path without ..")


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """What to start. ``memory`` in bytes or as "256M", ``cpus`` in processors, ``timeout`` in seconds for each command.

    ``network`` is "none", "host", or a Network that the sandbox has for itself.
    ``ports`` are published on this machine's loopback device: {80: 8080}, and {"53/udp": 5353} for UDP.
    ``extra_hosts`` are names with their addresses, for /etc/hosts; ``ulimits`` those of getrlimit(2) by their names,
    {"nofile": 1024} or with a soft and a hard one; ``cap_add`` capabilities beside the default ones, ``cap_drop`` those
    of them that root is not to have, or "ALL". With ``nesting`` sandboxes can be made in it, and what else takes user
    namespaces and mounts.
    Raises SpecError where a value cannot be right.
    """

    image: Image = HOST
    network: str | Network = "none"
    env: Any = ()
    mounts: tuple[Mount | Tmpfs, ...] = ()
    memory: Any = None
    cpus: float | None = None
    pids: int | None = None
    user: str | int | None = None
    workdir: str | None = None
    hostname: str = DEFAULT_HOSTNAME
    read_only: bool = False
    timeout: float | None = None
    time_namespace: bool = False
    ports: Any = ()
    extra_hosts: Any = ()
    ulimits: Any = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    shm_size: Any = None
    nesting: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.image, Image):
            raise SpecError(
                f"image={self.image!r} is no Image", hint="for example Image.host() or Image.archive('root.tar')"
            )
        object.__setattr__(self, "env", tuple(sorted(environment(self.env))))
        object.__setattr__(self, "mounts", tuple(self.mounts))
        object.__setattr__(self, "ports", _published(self.ports))
        object.__setattr__(self, "extra_hosts", hosts_of(self.extra_hosts))
        object.__setattr__(self, "ulimits", ulimits_of(self.ulimits))
        object.__setattr__(self, "cap_add", added(self.cap_add, host_network=self.network == "host"))
        object.__setattr__(self, "cap_drop", tuple(name for name in dropped(self.cap_drop) if name not in self.cap_add))
        if self.shm_size is not None:
            object.__setattr__(self, "shm_size", parse_size(self.shm_size))
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
        if self.network not in _NETWORKS and not isinstance(self.network, Network):
            raise SpecError(f"network={self.network!r} is none of {', '.join(_NETWORKS)}, and no Network")
        if not isinstance(self.hostname, str) or not _HOSTNAME.fullmatch(self.hostname):
            raise SpecError(f"hostname={self.hostname!r} is no host name", hint="letters, digits, - and ., at most 64")
        if self.workdir is not None and not os.path.isabs(self.workdir):
            raise SpecError(f"workdir={self.workdir!r} is not absolute")
        for mount in self.mounts:
            if not isinstance(mount, (Mount, Tmpfs)):
                raise SpecError(f"mounts has {mount!r}, which is neither a Mount nor a Tmpfs")
            if isinstance(mount, Mount) and mount.copy and self.image.is_host:
                raise SpecError(f"mount of {mount.source}: in a copy of this machine all is copied on write already")

    def with_env(self, **variables: str) -> Self:
        """Copy this spec with ``variables`` added."""
        return replace(self, env=tuple(sorted({**dict(self.env), **variables}.items())))


def is_copied(mount: Mount | Tmpfs) -> TypeGuard[Mount]:
    """Whether ``mount`` is a directory of the host that is copied on write."""
    return isinstance(mount, Mount) and mount.copy


SPEC_FIELDS = tuple(one.name for one in fields(SandboxSpec))
