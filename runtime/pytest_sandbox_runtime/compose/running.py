"""PYTEST_DONT_REWRITE. A compose project that runs: its networks, and its services in the order that they want."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from threading import Lock
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.compose.conversion import Conversion, health
from pytest_sandbox_runtime.compose.images import ServiceImages
from pytest_sandbox_runtime.compose.mounts import VolumeUse
from pytest_sandbox_runtime.errors import ComposeError, ServiceError
from pytest_sandbox_runtime.handle import Handle
from pytest_sandbox_runtime.network.names import HOST_GATEWAY
from pytest_sandbox_runtime.services.readiness import state_of
from pytest_sandbox_runtime.services.starting import Placed
from pytest_sandbox_runtime.specs.network import Network
from pytest_sandbox_runtime.specs.sandbox import SandboxSpec
from pytest_sandbox_runtime.volumes import check_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_sandbox_runtime.compose.model import ComposeService, Dependency, Project
    from pytest_sandbox_runtime.compose.networking import ComposeNetwork, NetworkUse
    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.live_network import Join, LiveNetwork
    from pytest_sandbox_runtime.services.live_service import LiveService
    from pytest_sandbox_runtime.specs.image import Image
    from pytest_sandbox_runtime.specs.ready import Ready
    from pytest_sandbox_runtime.specs.sandbox import Volume

_COMPLETED, _HEALTHY = "service_completed_successfully", "service_healthy"


class LiveProject(Handle):
    """A project that is up: ``project["web"]`` is a service, the first where it has several; ``services`` are all."""

    def __init__(
        self,
        project: Project,
        networks: Mapping[str, LiveNetwork],
        services: Mapping[str, tuple[LiveService, ...]],
        undo: ExitStack,
    ) -> None:
        self.project = project
        self.networks = networks
        self.services = services
        self._undo = undo.pop_all()

    def __repr__(self) -> str:
        return f"<LiveProject {self.project.name} {'closed' if self._undo is None else ', '.join(self.services)}>"

    def __getitem__(self, name: str) -> LiveService:
        if name not in self.services:
            raise KeyError(f"{self.project.name} has no service {name!r}: there are {', '.join(self.services)}")
        return self.services[name][0]

    def expose(self, host_port: int, *, port: int | None = None) -> None:
        """Let ``port`` of what is "host-gateway" in the file lead to ``host_port`` on this machine's loopback device.

        The port is the same where it is left out. Raises SpecError where that leads somewhere already.
        """
        _expose(self.networks, host_port, port)


def up(
    engine: Engine, project: Project, images: Mapping[str, Image] | None = None, expose: Iterable[int] = ()
) -> LiveProject:
    """Return ``project`` when its services are started, and healthy or listening at the ports that they publish.

    ``images`` are what names in the file, and in its Dockerfiles, stand for, ``expose`` ports for LiveProject.expose
    from the start. Raises SandboxError.
    """
    run = f"{project.name}-{os.urandom(4).hex()}"
    with ExitStack() as undo:
        directory = os.path.join(engine.run_directory, f"compose-{run}")
        os.mkdir(directory, 0o755)
        networks = {one.key: undo.enter_context(_network(engine, one)) for one in project.networks}
        for port in expose:
            _expose(networks, port)
        start = _Start(engine, project, networks, images or {}, run, directory)
        services = start.all(undo)
        return LiveProject(project, networks, services, undo)


def _network(engine: Engine, network: ComposeNetwork) -> LiveNetwork:
    subnets = [one.subnet for one in network.subnets if one.subnet and ":" not in one.subnet]
    return engine.network(Network(subnet=subnets[0] if subnets else None))


def _sees_part(service: ComposeService) -> bool:
    return any(isinstance(use, VolumeUse) and use.subpath is not None for use in service.volumes)


def _expose(networks: Mapping[str, LiveNetwork], host_port: int, port: int | None = None) -> None:
    for network in networks.values():
        network.expose(HOST_GATEWAY, host_port, port=port)


class _Start:
    """The start of one project: images side by side, sandboxes in order, programs when what they depend on is there.

    A sandbox that sees a part of a volume is made only then, too: others may be what makes that part.
    """

    def __init__(
        self,
        engine: Engine,
        project: Project,
        networks: Mapping[str, LiveNetwork],
        images: Mapping[str, Image],
        run: str,
        directory: str,
    ) -> None:
        self._engine = engine
        self._project = project
        self._networks = networks
        self._images = ServiceImages(project, images, directory)
        gateways = {key: network.gateway for key, network in networks.items()}
        self._convert = Conversion(project, run, directory, self._copy_out, self._check_part, gateways)
        self._placing = Lock()
        self._launched: dict[str, Future[tuple[LiveService, ...]]] = {one.name: Future() for one in project.services}
        self._configs: dict[str, dict[str, Any]] = {}
        self._health: dict[str, Ready | None] = {}

    def all(self, undo: ExitStack) -> dict[str, tuple[LiveService, ...]]:
        """Return all services; raises what the first met that could not be had."""
        services = self._project.services
        with ThreadPoolExecutor(max(1, len(services)), thread_name_prefix="compose") as pool:
            list(pool.map(self._prepare, services))
            placed = {service.name: self._place(service, undo) for service in services if not _sees_part(service)}
            done = [pool.submit(self._start, service, undo, placed.get(service.name)) for service in services]
        for future in done:
            future.result()
        return {service.name: self._launched[service.name].result() for service in services}

    def _prepare(self, service: ComposeService) -> None:
        """Find the configuration of the service's image, which is made or pulled where it has to be."""
        image = self._images.of(service)
        if self._images.must_pull(service) and service.image is not None:
            self._engine.images.pull(service.image, platform=service.platform)
        config = self._configs[service.name] = self._engine.images.config(image)
        self._health[service.name] = health(service, config)

    def _place(self, service: ComposeService, undo: ExitStack) -> list[Placed]:
        config = self._configs[service.name]
        placed = []
        with self._placing:
            declared = self._convert.service(service, self._images.of(service), config)
            for number in range(service.scale):
                joins = [self._join(service, use, first=number == 0) for use in service.networks]
                placed.append(Placed(self._engine, declared, joins, config))
                undo.callback(placed[-1].close)
        return placed

    def _start(self, service: ComposeService, undo: ExitStack, placed: list[Placed] | None) -> None:
        launched = self._launched[service.name]
        try:
            for dependency in service.depends_on:
                self._await(service, dependency)
            launched.set_result(tuple(one.start() for one in placed or self._place(service, undo)))
        except BaseException as error:
            launched.set_exception(error)
            raise
        if not self._is_to_complete(service.name):
            for live in launched.result():
                live.wait()

    def _is_to_complete(self, name: str) -> bool:
        """Whether ``name`` does something once that others wait for."""
        uses = [one for service in self._project.services for one in service.depends_on if one.service == name]
        return any(one.condition == _COMPLETED for one in uses)

    def _await(self, service: ComposeService, dependency: Dependency) -> None:
        for live in self._launched[dependency.service].result():
            if dependency.condition == _HEALTHY:
                check = self._health[dependency.service]
                if check is None:
                    key = f"services.{service.name}.depends_on.{dependency.service}"
                    raise ComposeError("has no health check to wait for", path=service.origin, key=key)
                live.wait(check)
            elif dependency.condition == _COMPLETED and live.process.wait(live.service.timeout) != 0:
                said = f"{live.name}: its process {state_of(live.process)}, and {service.name} waits for its success"
                raise ServiceError(f"{said}\n{live.tail()}")

    def _check_part(self, volume: Volume, subpath: str) -> None:
        check_part(volume, subpath, self._engine.run_directory)

    def _copy_out(self, image: Image, path: str, to: str) -> bool:
        with self._engine.create(SandboxSpec(image=image)) as sandbox:
            if not sandbox.files.is_dir(path):
                return False
            sandbox.get(path, to)
        return True

    def _join(self, service: ComposeService, use: NetworkUse, *, first: bool) -> Join:
        names = [service.name, *use.aliases, *([service.container_name] if service.container_name else [])]
        return self._networks[use.network].join(*dict.fromkeys(names), ip=use.ipv4_address if first else None)
