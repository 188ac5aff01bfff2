"""PYTEST_DONT_REWRITE. A service of the merged file as its declaration."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pytest_sandbox_runtime.compose.builds import parse_build
from pytest_sandbox_runtime.compose.environments import parse_environment, parse_labels
from pytest_sandbox_runtime.compose.fields import (
    Section,
    boolean,
    duration,
    filled,
    one_of,
    pairs,
    size,
    target,
    text,
    words,
)
from pytest_sandbox_runtime.compose.healthchecks import parse_healthcheck
from pytest_sandbox_runtime.compose.hosts import container_name, extra_hosts, host_name
from pytest_sandbox_runtime.compose.limits import parse_limits, parse_scale, parse_ulimits
from pytest_sandbox_runtime.compose.model import ComposeService, Dependency
from pytest_sandbox_runtime.compose.mounts import VolumeUse, parse_file, parse_mount
from pytest_sandbox_runtime.compose.networking import parse_networks
from pytest_sandbox_runtime.compose.ports import parse_expose, parse_ports, unique_ports
from pytest_sandbox_runtime.compose.processes import capability, parse_restart, pull_policy, stop_signal
from pytest_sandbox_runtime.compose.tmpfs import parse_tmpfs
from pytest_sandbox_runtime.compose.unsupported import refuse_service_keys
from pytest_sandbox_runtime.network.names import HOST_GATEWAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose.healthchecks import Healthcheck
    from pytest_sandbox_runtime.compose.mounts import FileUse, Use
    from pytest_sandbox_runtime.compose.nodes import Node
    from pytest_sandbox_runtime.compose.problems import Problems
    from pytest_sandbox_runtime.compose.references import References

T = TypeVar("T")
M = TypeVar("M", "FileUse", "Use")
_CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")


def parse_service(name: str, node: Node, references: References, problems: Problems) -> ComposeService:
    """Return the service ``name``; what is wrong with it is told ``problems``, what it needs ``references``."""
    service = Section(node, problems)
    refuse_service_keys(service)
    read = service.read
    mode, networks = parse_networks(service, references)
    declared = ComposeService(
        name=name,
        origin=str(node.place),
        image=read("image", filled, None),
        build=read("build", lambda build: parse_build(build, references, problems), None),
        pull_policy=read("pull_policy", pull_policy, None),
        platform=read("platform", filled, None),
        scale=parse_scale(service),
        command=read("command", words, None),
        entrypoint=read("entrypoint", words, None),
        environment=parse_environment(service),
        user=read("user", filled, None),
        working_dir=read("working_dir", target, None),
        init=read("init", boolean, default=False),
        tty=read("tty", boolean, default=False),
        stdin_open=read("stdin_open", boolean, default=False),
        stop_signal=read("stop_signal", stop_signal, None),
        stop_grace_period=read("stop_grace_period", duration, 10.0),
        restart=parse_restart(service),
        healthcheck=_healthcheck(service),
        depends_on=_dependencies(service),
        profiles=profiles(node),
        container_name=read("container_name", container_name, None),
        hostname=read("hostname", host_name, None),
        domainname=read("domainname", host_name, None),
        network_mode=mode,
        networks=networks,
        ports=unique_ports(service.items("ports", parse_ports)),
        expose=tuple(dict.fromkeys(port for item in service.items("expose", parse_expose) for port in item)),
        extra_hosts=read("extra_hosts", extra_hosts, ()),
        volumes=_mounts(service, references),
        configs=_files(service, "configs", references),
        secrets=_files(service, "secrets", references),
        read_only=read("read_only", boolean, default=False),
        shm_size=read("shm_size", size, None),
        limits=parse_limits(service),
        ulimits=read("ulimits", lambda ulimits: parse_ulimits(ulimits, problems), ()),
        cap_add=_unique(service, "cap_add", capability),
        cap_drop=_unique(service, "cap_drop", capability),
        labels=parse_labels(service),
        annotations=read("annotations", pairs, ()),
    )
    _check(declared, service)
    return declared


def profiles(node: Node) -> tuple[str, ...]:
    """Return the profiles of a service; none where it is in all."""
    said = node.get("profiles")
    return tuple(dict.fromkeys(text(item) for item in said.items)) if said else ()


def dependencies(node: Node) -> dict[str, Node]:
    """Return the services that one depends on: by ``depends_on``, and by ``links``."""
    said, links = node.get("depends_on"), node.get("links")
    linked = {text(item).partition(":")[0]: item.having({}) for item in links.items} if links else {}
    return {**linked, **(said.entries if said else {})}


def _check(declared: ComposeService, service: Section) -> None:
    node, problems = service.node, service.problems
    if declared.image is None and declared.build is None and not (node.get("image") or node.get("build")):
        problems.add(node.error("lacks image and build", "say what it starts from"))
    if declared.network_mode == "host" and declared.ports:
        hint = "they are the host's already; leave ports out"
        problems.add(node.entries["ports"].error("cannot be mapped with network_mode: host", hint))
    if declared.network_mode == "none" and HOST_GATEWAY in dict(declared.extra_hosts).values():
        hint = "leave network_mode out, or the name"
        problems.add(node.entries["extra_hosts"].error(f"there is no {HOST_GATEWAY} without a network", hint))
    if declared.container_name and declared.scale > 1:
        message = f"names one container, and there are {declared.scale}"
        problems.add(node.entries["container_name"].error(message, "leave it out"))
    for link in node.entries["links"].items if node.get("links") else ():
        service_name, _, alias = text(link).partition(":")
        if alias and alias != service_name:
            hint = f"say {alias} as an alias of {service_name}: networks, a network's name, aliases"
            problems.add(link.error(f"another name, {alias!r}, is not supported", hint))
    if deploy := service.section("deploy"):
        deploy.read("mode", one_of(("replicated", "global")), "")


def _healthcheck(service: Section) -> Healthcheck | None:
    return service.read("healthcheck", lambda node: parse_healthcheck(node, service.problems), None)


def _dependencies(service: Section) -> tuple[Dependency, ...]:
    found = []
    for name, node in dependencies(service.node).items():
        section = Section(node, service.problems)
        found.append(
            Dependency(
                service=name,
                condition=section.read("condition", one_of(_CONDITIONS), _CONDITIONS[0]),
                required=section.read("required", boolean, default=True),
                restart=section.read("restart", boolean, default=False),
            )
        )
    return tuple(found)


def _unique(service: Section, name: str, convert: Callable[[Node], T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(service.items(name, convert)))


def _files(service: Section, kind: str, references: References) -> tuple[FileUse, ...]:
    found = _by_target(service, kind, lambda item: parse_file(item, kind))
    for node, use in found:
        with service.problems.collecting():
            references.need(kind, use.source, node.get("source") or node)
    return tuple(use for _, use in found)


def _mounts(service: Section, references: References) -> tuple[Use, ...]:
    found, memory = _by_target(service, "volumes", parse_mount), _by_target(service, "tmpfs", parse_tmpfs)
    for node, use in found:
        if isinstance(use, VolumeUse) and use.source is not None:
            with service.problems.collecting():
                references.need("volumes", use.source, node.get("source") or node)
    targets = {use.target for _, use in found}
    for node, use in memory:
        if use.target in targets:
            service.problems.add(node.error(f"{use.target} is among the volumes, too", "say it once"))
    return tuple(use for _, use in (*found, *memory))


def _by_target(service: Section, name: str, convert: Callable[[Node], M]) -> list[tuple[Node, M]]:
    """Return the items of a list, and where they stand: of two with one target the later, as files are merged so."""
    found = service.items(name, lambda item: (item, convert(item)))
    return list({use.target: (item, use) for item, use in found}.values())
