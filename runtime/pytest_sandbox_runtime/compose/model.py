"""PYTEST_DONT_REWRITE. What compose files declare, checked and in one form; nothing in here runs or knows how.

Seconds are floats, sizes bytes, paths of the host absolute, commands tuples of words. ``origin`` is "file:line", for
what may be said about a declaration later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_sandbox_runtime.compose.builds import Build
    from pytest_sandbox_runtime.compose.healthchecks import Healthcheck
    from pytest_sandbox_runtime.compose.limits import Limits, Ulimit
    from pytest_sandbox_runtime.compose.mounts import BindUse, FileUse, VolumeUse
    from pytest_sandbox_runtime.compose.networking import ComposeNetwork, NetworkUse
    from pytest_sandbox_runtime.compose.ports import Port
    from pytest_sandbox_runtime.compose.resources import ComposeFile, ComposeVolume
    from pytest_sandbox_runtime.compose.tmpfs import TmpfsUse

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A service that is to be there first: started, healthy, or completed with exit status 0."""

    service: str
    condition: str = "service_started"
    required: bool = True
    restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """When to start a service again that has ended: no, always, on-failure, or unless-stopped.

    ``retries`` is how often on-failure does; None for as often as it fails.
    """

    policy: str = "no"
    retries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeService:
    """One service. ``command`` and ``entrypoint`` are the image's where None, and none at all where empty.

    ``environment`` has the files of ``env_file`` in it, and every name a value. ``networks`` is empty where
    ``network_mode`` is "none" or "host", and otherwise not.
    """

    name: str
    origin: str = field(compare=False)
    image: str | None = None
    build: Build | None = None
    pull_policy: str | None = None
    platform: str | None = None
    scale: int = 1

    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Pairs = ()
    user: str | None = None
    working_dir: str | None = None
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    stop_signal: str | None = None
    stop_grace_period: float = 10.0
    restart: Restart = Restart()
    healthcheck: Healthcheck | None = None

    depends_on: tuple[Dependency, ...] = ()
    profiles: tuple[str, ...] = ()

    container_name: str | None = None
    hostname: str | None = None
    domainname: str | None = None
    network_mode: str | None = None
    networks: tuple[NetworkUse, ...] = ()
    ports: tuple[Port, ...] = ()
    expose: tuple[tuple[int, str], ...] = ()
    extra_hosts: Pairs = ()

    volumes: tuple[BindUse | VolumeUse | TmpfsUse, ...] = ()
    configs: tuple[FileUse, ...] = ()
    secrets: tuple[FileUse, ...] = ()
    read_only: bool = False
    shm_size: int | None = None

    limits: Limits
    ulimits: tuple[Ulimit, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()

    labels: Pairs = ()
    annotations: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What to run: the services that are enabled or asked for, each after those that it depends on.

    ``networks``, ``volumes``, ``configs`` and ``secrets`` are those that a service uses. ``notes`` is what Compose
    would warn of.
    """

    name: str
    directory: str
    files: tuple[str, ...]
    profiles: tuple[str, ...] = ()
    services: tuple[ComposeService, ...] = ()
    networks: tuple[ComposeNetwork, ...] = ()
    volumes: tuple[ComposeVolume, ...] = ()
    configs: tuple[ComposeFile, ...] = ()
    secrets: tuple[ComposeFile, ...] = ()
    notes: tuple[str, ...] = ()

    def service(self, name: str) -> ComposeService:
        """Return the service ``name``; raises KeyError where it is not among ``services``."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)
