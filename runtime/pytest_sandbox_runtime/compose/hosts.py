"""PYTEST_DONT_REWRITE. Names of services and of other hosts."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.fields import text
from pytest_sandbox_runtime.network.names import HOST_GATEWAY

if TYPE_CHECKING:
    from pytest_sandbox_runtime.compose.model import Pairs
    from pytest_sandbox_runtime.compose.nodes import Node

_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def host_name(node: Node) -> str:
    """Return the name of a host, or of a domain."""
    said = text(node)
    if len(said) > 253 or not _HOST_NAME.fullmatch(said):
        raise node.error(f"{said!r} is no host name", "letters, digits and -, at most 63 between dots")
    return said


def container_name(node: Node) -> str:
    """Return the name of a container."""
    said = text(node)
    if not _CONTAINER_NAME.fullmatch(said):
        raise node.error(f"{said!r} is no name of a container", "letters, digits, _, . and -, two at least")
    return said


def extra_hosts(node: Node) -> Pairs:
    """Return names and their addresses; one that is to be the test's machine has "host-gateway"."""
    return tuple(dict.fromkeys(_host(item) for item in node.items))


def _host(node: Node) -> tuple[str, str]:
    said = text(node)
    name, separator, address = said.partition("=" if "=" in said else ":")
    address = address.removeprefix("[").removesuffix("]")
    hint = f'for example "somehost=192.0.2.1", or "somehost={HOST_GATEWAY}"'
    if not separator or not _HOST_NAME.fullmatch(name):
        raise node.error(f"{said!r} is no host and its address", hint)
    if address == HOST_GATEWAY:
        return name, address
    try:
        return name, str(ipaddress.ip_address(address))
    except ValueError:
        raise node.error(f"{address!r} is no IP address", hint) from None
