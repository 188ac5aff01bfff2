"""PYTEST_DONT_REWRITE. ``ports`` and ``expose``, ranges port by port."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.fields import one_of, text

if TYPE_CHECKING:
    from pytest_sandbox_runtime.compose.nodes import Node

_PROTOCOLS = ("tcp", "udp")
_HINT = 'for example "8080:80", "127.0.0.1:8080:80/tcp" or "9000-9002:9000-9002"'
_EXPOSE_HINT = 'for example "3000" or "8000-8005/udp"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port of a service that the host has, too: ``published``, or any free one where that is None.

    With ``published_end`` it is a free one of those from ``published`` to there. ``host_ip`` is None for all addresses.
    """

    target: int
    published: int | None = None
    published_end: int | None = None
    host_ip: str | None = None
    protocol: str = "tcp"


def parse_ports(node: Node) -> tuple[Port, ...]:
    """Return the ports of one item of ``ports``."""
    return _long(node) if isinstance(node.value, dict) else _short(node)


def parse_expose(node: Node) -> tuple[tuple[int, str], ...]:
    """Return the ports of one item of ``expose``, each with its protocol."""
    ports, protocol = _with_protocol(node, text(node), _EXPOSE_HINT)
    first, last = _range(node, ports, _EXPOSE_HINT)
    return tuple((port, protocol) for port in range(first, last + 1))


def unique_ports(ports: tuple[tuple[Port, ...], ...]) -> tuple[Port, ...]:
    """Return each port once."""
    return tuple(dict.fromkeys(port for group in ports for port in group))


def _long(node: Node) -> tuple[Port, ...]:
    target = node.get("target")
    if target is None:
        raise node.error("lacks target", "the port in the sandbox")
    published, host_ip, protocol = node.get("published"), node.get("host_ip"), node.get("protocol")
    if mode := node.get("mode"):
        one_of(("host", "ingress"))(mode)
    kind = one_of(_PROTOCOLS)(protocol) if protocol else "tcp"
    first, last = _range(published, text(published), _HINT) if published and text(published) else (0, 0)
    port = _range(target, text(target), _HINT)
    if port[0] != port[1]:
        raise target.error(f"{text(target)!r} is more than one port", "write each, or the short form")
    return (_port(port[0], first, last, _address(host_ip, text(host_ip)) if host_ip else None, kind),)


def _short(node: Node) -> tuple[Port, ...]:
    ports, protocol = _with_protocol(node, text(node), _HINT)
    rest, _, container = ports.rpartition(":")
    if rest.startswith("[") and rest.endswith("]"):
        raise node.error(f"{text(node)!r} has an address and one port", "write [address]:published:target")
    address, _, host = rest.rpartition(":")
    host_ip = _address(node, address) if address else None
    first, last = _range(node, container, _HINT)
    begin, end = _range(node, host, _HINT) if host else (0, 0)
    if first == last:
        return (_port(first, begin, end, host_ip, protocol),)
    if host and end - begin != last - first:
        raise node.error(f"{text(node)!r} has ranges of different lengths", _HINT)
    return tuple(
        _port(port, begin + offset if host else 0, 0, host_ip, protocol)
        for offset, port in enumerate(range(first, last + 1))
    )


def _port(target: int, first: int, last: int, host_ip: str | None, protocol: str) -> Port:
    end = last if last > first else None
    return Port(target=target, published=first or None, published_end=end, host_ip=host_ip, protocol=protocol)


def _with_protocol(node: Node, said: str, hint: str) -> tuple[str, str]:
    ports, slash, protocol = said.partition("/")
    if slash and protocol.lower() not in _PROTOCOLS:
        raise node.error(f"{said!r} has the protocol {protocol!r}", "there are tcp and udp")
    if not ports:
        raise node.error(f"{said!r} is no port", hint)
    return ports, protocol.lower() or "tcp"


def _range(node: Node, said: str, hint: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", said)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last <= 0xFFFF:
        raise node.error(f"{said!r} is no port, nor a range of them", hint)
    return first, last


def _address(node: Node, said: str) -> str | None:
    address = said.removeprefix("[").removesuffix("]")
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        raise node.error(f"{address!r} is no IP address", _HINT) from None
    return None if found.is_unspecified and found.version == 4 else str(found)
