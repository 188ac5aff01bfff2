"""PYTEST_DONT_REWRITE. A network that sandboxes can join."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import SpecError

if TYPE_CHECKING:
    from ipaddress import IPv4Network

# A label of RFC 1123, and names made of them.
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_LONGEST_NAME = 253
# Of the least that IPv6 wants of a device: RFC 8200.
_LEAST_MTU, _LEAST_MTU_OF_IPV4, _MOST_MTU = 1280, 576, 65535
_LONGEST_PREFIX = 29


@dataclass(frozen=True, kw_only=True)
class Network:
    """Sandboxes that see each other, by name and address, and nothing else. ``mtu`` in bytes, 1500 where left out.

    With ``internet`` everything outside can be reached, by slirp4netns(1). Without it
    ``allow`` names what can be reached outside all the same, as "api.example.org:443", and nothing else there can.
    ``subnet`` is one of IPv4, as "10.5.0.0/16"; where left out, the first that the run has free: the same each time.
    Raises SpecError where a value cannot be right.
    """

    name: str | None = None
    subnet: str | None = None
    ipv6: bool = True
    internet: bool = False
    mtu: int | None = None
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "the name of a network")
        if self.mtu is not None:
            least = _LEAST_MTU if self.ipv6 else _LEAST_MTU_OF_IPV4
            if isinstance(self.mtu, bool) or not isinstance(self.mtu, int) or not least <= self.mtu <= _MOST_MTU:
                raise SpecError(f"mtu={self.mtu!r} is no number of bytes from {least} to {_MOST_MTU}")
        object.__setattr__(self, "allow", (self.allow,) if isinstance(self.allow, str) else tuple(self.allow))
        for place in self.allow:
            parse_place(place)
        if self.subnet is not None:
            object.__setattr__(self, "subnet", str(parse_subnet(self.subnet)))

    def __str__(self) -> str:
        return " ".join(part for part in ("network", self.name, self.subnet) if part)


def parse_place(place: str) -> tuple[str, int]:
    """Return the name and the port that ``place`` has; raises SpecError."""
    name, _, port = place.rpartition(":") if isinstance(place, str) else ("", "", "")
    if not (port.isdecimal() and 0 < int(port) < 65536) or not name:
        raise SpecError(f"allow has {place!r}, which is no name with a port", hint='for example "api.example.org:443"')
    check_name(name, "a name that could be allowed")
    if name.rsplit(".", 1)[-1].isdecimal():
        raise SpecError(f"allow has {place!r}, which is an address", hint="what may be reached is said by its name")
    return name, int(port)


def parse_subnet(subnet: str) -> IPv4Network:
    """Return ``subnet``; raises SpecError where it is no subnet of IPv4 that has room for sandboxes."""
    from ipaddress import IPv4Network, ip_network

    try:
        network = ip_network(subnet)
    except ValueError as error:
        raise SpecError(f"subnet={subnet!r} is none: {error}", hint="for example 10.5.0.0/24") from None
    if not isinstance(network, IPv4Network):
        raise SpecError(
            f"subnet={subnet!r} is of IPv6", hint="give one of IPv4: each host has an address of IPv6 beside it"
        )
    if network.prefixlen > _LONGEST_PREFIX:
        raise SpecError(f"subnet={subnet!r} has no room for two sandboxes and a gateway", hint="/29 is the smallest")
    if network.is_multicast or network.is_loopback or network.is_unspecified or network.prefixlen < 8:
        raise SpecError(f"subnet={subnet!r} is no place for hosts", hint="for example 10.5.0.0/24")
    return network


def check_name(name: str, what: str) -> None:
    """Raise SpecError where ``name`` is none that hosts(5) and DNS can have."""
    if not isinstance(name, str) or len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise SpecError(f"{name!r} is not {what}", hint="labels of letters, digits, - and _, with dots between them")
