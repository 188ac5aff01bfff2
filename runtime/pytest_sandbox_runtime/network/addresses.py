"""PYTEST_DONT_REWRITE. Which addresses a network has: arithmetic, the client's."""

from __future__ import annotations

import shutil
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import SpecError, UnsupportedError
from pytest_sandbox_runtime.network.bridge import GATEWAY, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_sandbox_runtime.specs.network import Network

# Where networks that do not care are, the lowest free one of 256 each time.
_OWN = IPv4Network("10.77.0.0/16")
_OWN_PREFIX = 24
_MTU = 1500
_PREFIX6 = 64


def choose(spec: Network, taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return the subnet of ``spec`` beside those that are ``taken``; raises SpecError where there is none."""
    taken = tuple(taken)
    if spec.subnet is not None:
        wanted = IPv4Network(spec.subnet)
        if other := next((one for one in taken if one.overlaps(wanted)), None):
            raise SpecError(f"subnet={spec.subnet!r} overlaps {other}, which another network of this run has")
        return wanted
    free = (one for one in _OWN.subnets(new_prefix=_OWN_PREFIX) if not any(one.overlaps(other) for other in taken))
    subnet = next(free, None)
    if subnet is None:
        raise SpecError(f"all subnets of {_OWN} are taken", hint="close networks, or give each a subnet=")
    return subnet


def plan(spec: Network, subnet: IPv4Network) -> Plan:
    """Return what a network in ``subnet`` is made of; raises UnsupportedError where the internet cannot be had."""
    net4 = subnet.network_address.packed
    # A unique local prefix, RFC 4193, that says which subnet it stands beside.
    net6 = b"\xfd\x78" + net4 + bytes(10) if spec.ipv6 else b""
    return Plan(net4, subnet.prefixlen, net6, _PREFIX6, spec.mtu or _MTU, _slirp() if spec.internet else "")


def _slirp() -> str:
    program = shutil.which("slirp4netns")
    if program is None:
        msg = "internet=True needs slirp4netns, which is not installed"
        raise UnsupportedError(msg, hint="sudo apt install slirp4netns; or name what is needed with allow=")
    return program


def host_of(address: str, subnet: IPv4Network) -> int:
    """Return the number of the host that has ``address`` in ``subnet``; raises SpecError where none can."""
    try:
        wanted = ip_address(address)
    except ValueError as error:
        raise SpecError(f"ip={address!r} is none: {error}") from None
    if not isinstance(wanted, IPv4Address) or wanted not in subnet:
        raise SpecError(f"ip={address!r} is not in {subnet}")
    host = int(wanted) - int(subnet.network_address)
    if host in (0, GATEWAY, subnet.num_addresses - 1):
        raise SpecError(f"ip={address!r} is no sandbox's: the first, the second and the last of {subnet} are taken")
    return host
