"""PYTEST_DONT_REWRITE. Networks, and a service's place in them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.fields import Section, boolean, filled, one_of, pairs, text
from pytest_sandbox_runtime.compose.references import DEFAULT
from pytest_sandbox_runtime.compose.unsupported import ATTACHMENT_KEYS, NETWORK_KEYS, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose.model import Pairs
    from pytest_sandbox_runtime.compose.nodes import Node
    from pytest_sandbox_runtime.compose.problems import Problems
    from pytest_sandbox_runtime.compose.references import References

_MODES = ("none", "host")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkUse:
    """A service in a network, by its key among the project's; it answers to its name there, and to ``aliases``."""

    network: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str | None = None
    ipv6_address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """Addresses of a network: those of ``ip_range``, if it says so, are given out; ``reserved`` are named and not."""

    subnet: str | None = None
    ip_range: str | None = None
    gateway: str | None = None
    reserved: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeNetwork:
    """A network; with ``internal`` there is no way out of it."""

    key: str
    name: str
    origin: str = field(compare=False)
    internal: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    subnets: tuple[Subnet, ...] = ()
    labels: Pairs = ()


def parse_network(key: str, node: Node, project: str, problems: Problems) -> ComposeNetwork:
    """Return a network of the file."""
    section = Section(node, problems)
    refuse(section, NETWORK_KEYS)
    refuse_external(node, problems, "leave external out: the network is made for the run")
    section.read("driver", one_of(("bridge", "default")), "")
    ipam = section.section("ipam")
    if ipam:
        ipam.read("driver", one_of(("default",)), "")
        refuse(ipam, {"options": "leave it out"})
    return ComposeNetwork(
        key=key,
        name=section.read("name", filled, f"{project}_{key}"),
        origin=str(node.place),
        internal=section.read("internal", boolean, default=False),
        enable_ipv4=section.read("enable_ipv4", boolean, default=True),
        enable_ipv6=section.read("enable_ipv6", boolean, default=False),
        subnets=ipam.items("config", lambda item: _subnet(item, problems)) if ipam else (),
        labels=section.read("labels", pairs, ()),
    )


def refuse_external(node: Node, problems: Problems, hint: str) -> None:
    """Tell ``problems`` where something is said to be there already."""
    external = node.get("external")
    if external is not None and (external.entries or (external.value != {} and boolean(external))):
        problems.add(external.error("is not supported: nothing is there before the run", hint))


def parse_networks(service: Section, references: References) -> tuple[str | None, tuple[NetworkUse, ...]]:
    """Return the network mode of a service, and the networks that it is in."""
    mode, node = service.node.get("network_mode"), service.node.get("networks")
    attached = node.entries if node else {}
    if mode is not None:
        if attached:
            service.problems.add(mode.error("stands beside networks", "say one of the two"))
        return service.read("network_mode", _mode, None), ()
    uses = []
    for name, entry in (attached or {DEFAULT: service.node.having({})}).items():
        with service.problems.collecting():
            references.need("networks", name, entry)
            uses.append(_use(name, entry, service.problems))
    return None, tuple(uses)


def _mode(node: Node) -> str:
    mode = text(node)
    if mode in _MODES:
        return mode
    hint = 'there are "none" and "host"; for a network in common leave it out, or say networks'
    raise node.error(f"{mode!r} is not supported", hint)


def _use(name: str, node: Node, problems: Problems) -> NetworkUse:
    section = Section(node, problems)
    refuse(section, ATTACHMENT_KEYS)
    return NetworkUse(
        network=name,
        aliases=tuple(dict.fromkeys(section.items("aliases", filled))),
        ipv4_address=section.read("ipv4_address", _address(4), None),
        ipv6_address=section.read("ipv6_address", _address(6), None),
    )


def _address(*versions: int) -> Callable[[Node], str]:
    def convert(node: Node) -> str:
        said = text(node)
        try:
            address = ipaddress.ip_address(said)
        except ValueError:
            address = None
        if address is None or address.version not in versions:
            raise node.error(f"{said!r} is no IP{f'v{versions[0]}' if len(versions) == 1 else ''} address")
        return str(address)

    return convert


def _block(node: Node) -> str:
    try:
        return str(ipaddress.ip_network(text(node)))
    except ValueError as error:
        raise node.error(str(error), 'write for example "10.5.0.0/24"') from None


def _subnet(node: Node, problems: Problems) -> Subnet:
    section = Section(node, problems)
    named = section.section("aux_addresses")
    names = named.node.entries if named else {}
    subnet = Subnet(
        subnet=section.read("subnet", _block, None),
        ip_range=section.read("ip_range", _block, None),
        gateway=section.read("gateway", _address(4, 6), None),
        reserved=tuple((name, _address(4, 6)(entry)) for name, entry in names.items()),
    )
    for name in ("ip_range", "gateway"):
        _check_within(node, subnet.subnet, name, getattr(subnet, name))
    return subnet


def _check_within(node: Node, subnet: str | None, name: str, value: str | None) -> None:
    if value is None:
        return
    if subnet is None:
        raise node.entries[name].error("stands without subnet", "say subnet, too")
    if not within(value, subnet):
        raise node.entries[name].error(f"{value} is not in {subnet}")


def within(address: str, subnet: str) -> bool:
    """Whether an address, or a block of them, is part of ``subnet``."""
    inner, outer = ipaddress.ip_network(address), ipaddress.ip_network(subnet)
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
