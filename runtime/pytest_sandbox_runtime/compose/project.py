"""PYTEST_DONT_REWRITE. From the names of files to a project."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.documents import Documents
from pytest_sandbox_runtime.compose.files import checked_name, directory_of, files_of, normal_name, variables_of
from pytest_sandbox_runtime.compose.merging import settled
from pytest_sandbox_runtime.compose.model import Project
from pytest_sandbox_runtime.compose.networking import parse_network, within
from pytest_sandbox_runtime.compose.problems import Problems
from pytest_sandbox_runtime.compose.references import References
from pytest_sandbox_runtime.compose.resources import parse_content, parse_volume
from pytest_sandbox_runtime.compose.selection import Selection
from pytest_sandbox_runtime.compose.services import parse_service

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_sandbox_runtime.compose.model import ComposeService
    from pytest_sandbox_runtime.compose.networking import ComposeNetwork
    from pytest_sandbox_runtime.compose.nodes import Node


def load(
    paths: Sequence[str] | str,
    *,
    profiles: Iterable[str] = (),
    env_file: str | None = None,
    environ: Mapping[str, str] = os.environ,
    project_name: str | None = None,
    services: Iterable[str] = (),
) -> Project:
    """Return what ``paths`` declare: compose files, each merged over those before it, or the directory of one.

    ``environ`` and ``env_file`` (the ``.env`` beside the first file, if there is one) are for the variables in values.
    Without ``profiles`` those of COMPOSE_PROFILES are active. ``services`` are those that are wanted, with all that
    they depend on; without any it is all that a profile enables. Raises ComposeError with every mistake that was
    found, and UnsupportedError where PyYAML or fastjsonschema are missing.
    """
    given = [paths] if isinstance(paths, str) else list(paths)
    directory = directory_of(given)
    variables = variables_of(directory, env_file, environ)
    files = files_of(given, variables)
    documents = Documents(Problems())
    name = _name(project_name, variables, documents.name(files, directory, variables), directory)
    variables["COMPOSE_PROJECT_NAME"] = name
    root = settled(documents.model(files, directory, variables))
    active = list(profiles) or [
        part.strip() for part in variables.get("COMPOSE_PROFILES", "").split(",") if part.strip()
    ]
    project = Project(name=name, directory=directory, files=files, profiles=tuple(active))
    return _filled(project, root, tuple(services), documents.problems)


def _name(asked: str | None, variables: Mapping[str, str], said: str, directory: str) -> str:
    if asked or variables.get("COMPOSE_PROJECT_NAME"):
        return checked_name(asked or variables["COMPOSE_PROJECT_NAME"])
    return normal_name(said) or normal_name(os.path.basename(directory)) or "default"


def _filled(project: Project, root: Node, wanted: Sequence[str], problems: Problems) -> Project:
    if not root.get("services"):
        problems.add(root.place.error("there are no services", "a compose file has them under services:"))
    selection = Selection(root, project.profiles, wanted, problems)
    nodes = selection.ordered()
    references = References(root)
    services = [parse_service(name, node, references, problems) for name, node in nodes.items()]
    name = project.name
    networks = [parse_network(key, node, name, problems) for key, node in references.needed("networks").items()]
    volumes = [parse_volume(key, node, name, problems) for key, node in references.needed("volumes").items()]
    configs = [parse_content(key, node, name, problems) for key, node in references.needed("configs").items()]
    secrets = [parse_content(key, node, name, problems) for key, node in references.needed("secrets").items()]
    for service in services:
        _check_addresses(service, nodes[service.name], {network.key: network for network in networks}, problems)
        _check_contexts(service, nodes[service.name], services, problems)
    problems.check()
    return replace(
        project,
        profiles=selection.active,
        services=tuple(_with_dependencies(service, nodes) for service in services),
        networks=tuple(networks),
        volumes=tuple(volumes),
        configs=tuple(configs),
        secrets=tuple(secrets),
        notes=problems.notes,
    )


def _with_dependencies(service: ComposeService, nodes: Mapping[str, Node]) -> ComposeService:
    """Return ``service`` without the dependencies that are not required and not there."""
    there = tuple(dependency for dependency in service.depends_on if dependency.service in nodes)
    return replace(service, depends_on=there)


def _check_addresses(
    service: ComposeService, node: Node, networks: Mapping[str, ComposeNetwork], problems: Problems
) -> None:
    for use in service.networks:
        subnets = [subnet.subnet for subnet in networks[use.network].subnets if subnet.subnet]
        for key in ("ipv4_address", "ipv6_address"):
            address = getattr(use, key)
            said = node.get("networks", use.network, key)
            if said and address and not any(within(address, subnet) for subnet in subnets):
                hint = f"declare the subnet: networks, {use.network}, ipam, config, subnet"
                problems.add(said.error(f"{address} is in no subnet of the network {use.network!r}", hint))


def _check_contexts(
    service: ComposeService, node: Node, services: Sequence[ComposeService], problems: Problems
) -> None:
    built = {other.name for other in services if other.build}
    for context in service.build.contexts if service.build else ():
        said = node.get("build", "additional_contexts", context.name)
        if said and context.service is not None and context.service not in built:
            hint = "it has to be one of the services that run, and to have build"
            problems.add(said.error(f"the image of {context.service!r} is not made here", hint))
