"""PYTEST_DONT_REWRITE. From a service of a compose file to one that an engine can start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.compose.mounts import BindUse, FileUse, VolumeUse
from pytest_sandbox_runtime.errors import ComposeError, SpecError
from pytest_sandbox_runtime.network.names import HOST_GATEWAY
from pytest_sandbox_runtime.specs.confinement import ADDABLE, CAPABILITIES
from pytest_sandbox_runtime.specs.ready import AllOf, Command, Port, Ready
from pytest_sandbox_runtime.specs.sandbox import Mount, Tmpfs, Volume
from pytest_sandbox_runtime.specs.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pytest_sandbox_runtime.compose.model import ComposeService, Project
    from pytest_sandbox_runtime.compose.tmpfs import TmpfsUse
    from pytest_sandbox_runtime.specs.image import Image

    Config = Mapping[str, Any]
    CopyOut = Callable[[Image, str, str], bool]


class Conversion:
    """Turns the services of ``project`` into Services. ``run`` is a name that no other run of it has.

    What services are to see of configs and secrets is written to ``directory``; ``copy_out`` copies a directory of an
    image to one of the host, and says whether there is any; ``check_part`` raises SpecError for a part that a volume
    lacks. ``gateways`` are the addresses of the networks' gateways.
    """

    def __init__(
        self,
        project: Project,
        run: str,
        directory: str,
        copy_out: CopyOut,
        check_part: Callable[[Volume, str], None],
        gateways: Mapping[str, str],
    ) -> None:
        self._copy_out = copy_out
        self._check_part = check_part
        self._gateways = gateways
        self._project = project
        self._run = run
        self._directory = directory

    def service(self, service: ComposeService, image: Image, config: Config) -> Service:
        """Return ``service`` on ``image``, whose configuration is ``config``; raises ComposeError."""
        self._refuse(service)
        restart = service.restart.policy
        if restart == "on-failure" and service.restart.retries is not None:
            restart += f":{service.restart.retries}"
        try:
            return Service(
                image,
                command=_command(service, config),
                name=service.name,
                aliases=(service.container_name,) if service.container_name else (),
                ready=_readiness(service, config),
                ports=tuple(dict.fromkeys(_ports(service))),
                env=service.environment,
                restart=restart,
                stop_signal=service.stop_signal,
                stop_timeout=service.stop_grace_period,
                tty=service.tty,
                stdin_open=service.stdin_open,
                sandbox=self._words(service, image),
            )
        except SpecError as error:
            raise _wrong(service, "", error.message, error.hint) from error

    def _words(self, service: ComposeService, image: Image) -> dict[str, Any]:
        hostname = service.hostname or service.name
        return {
            "hostname": f"{hostname}.{service.domainname}" if service.domainname else hostname,
            "network": service.network_mode or "none",
            "user": service.user,
            "workdir": service.working_dir,
            "read_only": service.read_only,
            "memory": service.limits.memory,
            "cpus": service.limits.cpus,
            "pids": service.limits.pids,
            "shm_size": service.shm_size,
            "ulimits": tuple((limit.name, limit.soft, limit.hard) for limit in service.ulimits),
            "cap_add": service.cap_add,
            "cap_drop": _dropped(service),
            "extra_hosts": tuple(self._hosts(service)),
            "mounts": tuple(self._mounts(service, image)),
            "ports": tuple(
                (port.target, port.protocol, port.published)
                for port in service.ports
                if port.published is not None and port.published_end is None
            ),
        }

    def _hosts(self, service: ComposeService) -> Iterator[tuple[str, str]]:
        # On the machine's own network the machine is here.
        gateway = self._gateways[service.networks[0].network] if service.networks else "127.0.0.1"
        for name, address in service.extra_hosts:
            yield name, gateway if address == HOST_GATEWAY else address

    def _refuse(self, service: ComposeService) -> None:
        """Raise ComposeError for what a file may say and a sandbox cannot be."""
        for name in service.cap_add:
            if name not in (*CAPABILITIES, *ADDABLE):
                hint = f"there are {', '.join(ADDABLE)}"
                raise _wrong(service, "cap_add", f"{name} would reach beyond the sandbox", hint)

    def _mounts(self, service: ComposeService, image: Image) -> list[Mount | Tmpfs]:
        mounts: list[Mount | Tmpfs] = []
        for number, use in enumerate(service.volumes):
            if isinstance(use, BindUse):
                mounts.append(self._bind(service, use))
            elif isinstance(use, VolumeUse):
                mounts.append(self._volume(service, use, number, image))
            else:
                mounts.append(_tmpfs(use))
        mounts += [self._file(service, use, "configs") for use in service.configs]
        mounts += [self._file(service, use, "secrets") for use in service.secrets]
        return mounts

    def _bind(self, service: ComposeService, use: BindUse) -> Mount:
        if not os.path.lexists(use.source):
            if not use.create_host_path:
                raise _wrong(service, "volumes", f"{use.source} is not there", "")
            os.makedirs(use.source)
        return Mount(source=use.source, target=use.target, read_only=use.read_only)

    def _volume(self, service: ComposeService, use: VolumeUse, number: int, image: Image) -> Mount:
        name = f"{service.name}-{number}" if use.source is None else f"named-{use.source}"
        # A new volume begins with what the image has there.
        begin = os.path.join(self._directory, f"volume-{name}")
        is_whole = use.subpath is None
        is_begun = os.path.isdir(begin) or (is_whole and not use.nocopy and self._copy_out(image, use.target, begin))
        volume = Volume(f"{self._run}-{name}", source=begin if is_begun else None)
        try:
            self._check_part(volume, use.subpath or "")
        except SpecError as error:
            assert use.place is not None  # it has a subpath
            raise use.place.error(error.message.replace(volume.name, str(use.source)), error.hint) from error
        return Mount(source=volume, target=use.target, read_only=use.read_only, subpath=use.subpath or "")

    def _file(self, service: ComposeService, use: FileUse, kind: str) -> Mount:
        file = next(one for one in getattr(self._project, kind) if one.key == use.source)
        content = file.content
        path = os.path.join(self._directory, f"{service.name}-{kind}-{use.source}")
        if content is None:
            with open(str(file.file), "rb") as source:
                data = source.read()
        else:
            data = content.encode()
        with open(path, "wb") as written:
            written.write(data)
        os.chmod(path, use.mode)
        if (use.uid or 0, use.gid or 0) != (0, 0):
            try:
                os.chown(path, use.uid or 0, use.gid or 0)
            except PermissionError:
                hint = "leave uid and gid out, or run as root"
                raise _wrong(service, kind, "an ordinary user gives files to nobody else", hint) from None
        default = f"/run/secrets/{use.source}" if kind == "secrets" else f"/{use.source}"
        target = use.target or default
        if not target.startswith("/"):
            target = f"/run/secrets/{target}" if kind == "secrets" else f"/{target}"
        return Mount(source=path, target=target)


def _tmpfs(use: TmpfsUse) -> Tmpfs:
    return Tmpfs(
        target=use.target,
        size=use.size,
        mode=0o1777 if use.mode is None else use.mode,
        uid=use.uid or 0,
        gid=use.gid or 0,
        read_only=use.read_only,
        executable=use.executable,
    )


def _wrong(service: ComposeService, key: str, message: str, hint: str) -> ComposeError:
    where = ".".join(part for part in ("services", service.name, key) if part)
    return ComposeError(message, path=service.origin, key=where, hint=hint)


def _dropped(service: ComposeService) -> tuple[str, ...]:
    if "ALL" in service.cap_drop:
        return CAPABILITIES
    return tuple(name for name in service.cap_drop if name in CAPABILITIES)


def _command(service: ComposeService, config: Config) -> tuple[str, ...] | None:
    entrypoint, command = service.entrypoint, service.command
    if command is None:
        # An entrypoint of one's own has the image's command no more.
        command = () if entrypoint is not None else tuple(config.get("Cmd") or ())
    if entrypoint is None:
        entrypoint = tuple(config.get("Entrypoint") or ())
    return (*entrypoint, *command) or None


def _ports(service: ComposeService) -> list[int]:
    return [port.target for port in service.ports if port.protocol == "tcp"] + [
        port for port, protocol in service.expose if protocol == "tcp"
    ]


def health(service: ComposeService, config: Config) -> Ready | None:
    """Return the command by which ``service`` is healthy, of the file or of its image; None without one."""
    check = service.healthcheck
    if check is not None and (check.disable or check.test == ()):
        return None
    test = check.test if check is not None else None
    if test is None:
        from pytest_sandbox_runtime.services.live_service import health_of

        return health_of(dict(config))
    return Command(test)


def _readiness(service: ComposeService, config: Config) -> Ready | None:
    if (command := health(service, config)) is not None:
        return command
    published = tuple(Port(port.target) for port in service.ports if port.protocol == "tcp")
    return AllOf(published) if published else None
