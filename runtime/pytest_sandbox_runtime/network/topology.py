"""PYTEST_DONT_REWRITE. Who is on which network of a run, and what can be reached from there: as the watch is told."""

from __future__ import annotations

from pytest_sandbox_runtime.network.bridge import DNS_PORT, GATEWAY, Plan, addresses_of
from pytest_sandbox_runtime.network.names import HOST_GATEWAY, spelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # Names, and the addresses that they stand for.
    Member = tuple[tuple[str, ...], tuple[bytes, ...]]


def outlet(name: str) -> str:
    """Return who is behind a ``name`` that is reached over a network, but on no sandbox."""
    return f"outlet {name}"


class Known:
    """A network: its members by who they are, sandboxes and others, and of the others which ports are open."""

    def __init__(self, plan: Plan) -> None:
        self.leads_outside = bool(plan.slirp)
        self.members: dict[str, Member] = {}
        self.open: dict[str, set[int]] = {}
        self._gateway = addresses_of(plan, GATEWAY)
        self._prefixes = (plan.prefix4, plan.prefix6)

    def holds(self, address: bytes) -> bool:
        """Return whether ``address`` is one of this network's."""
        for own, prefix in zip(self._gateway, self._prefixes):  # noqa: B905  one has no IPv6
            bits = len(own) * 8 - prefix
            if len(own) == len(address) and _number(own) >> bits == _number(address) >> bits:
                return True
        return False

    def who_has(self, address: bytes) -> str | None:
        """Return who has ``address``."""
        return next((who for who, (_, addresses) in self.members.items() if address in addresses), None)

    def refused(self, address: bytes, port: int) -> str | None:
        """Return as what ``port`` of ``address``, which this network ``holds``, is closed to everybody here, if so."""
        if address in self._gateway:
            return None if port in (DNS_PORT, *self.open.get(outlet(HOST_GATEWAY), ())) else HOST_GATEWAY
        who = self.who_has(address)
        return self.members[who][0][0] if who in self.open and port not in self.open[who] else None


class Topology:
    """The networks of a run, by number."""

    def __init__(self) -> None:
        self.networks: dict[int, Known] = {}

    def add(self, number: int, plan: tuple[Any, ...]) -> None:
        """Take note of a network."""
        self.networks[number] = Known(Plan(*plan))

    def remove(self, number: int) -> None:
        """Forget a network."""
        del self.networks[number]

    def name(self, number: int, who: str, names: tuple[str, ...], addresses: tuple[bytes, ...]) -> None:
        """Let ``who`` be on a network."""
        self.networks[number].members[who] = names, addresses

    def forget(self, number: int, who: str) -> None:
        """Let ``who`` be on a network no more."""
        self.networks[number].members.pop(who, None)

    def open(self, number: int, who: str, port: int) -> None:
        """Let ``port`` of ``who``, who is no sandbox, be open."""
        self.networks[number].open.setdefault(who, set()).add(port)

    def of(self, sandbox: str | None) -> list[Known]:
        """Return the networks that a sandbox is on."""
        return [network for network in self.networks.values() if sandbox in network.members]

    def refused(self, sandbox: str, address: bytes, port: int) -> str | None:
        """Return as what ``port`` of ``address`` is out of the sandbox's reach, by a name where it has one, if so."""
        if _is_on_the_machine(address):
            return None
        networks = self.of(sandbox)
        for network in networks:
            if network.holds(address):
                return network.refused(address, port)
        return None if any(network.leads_outside for network in networks) else spelled(address)


def _number(address: bytes) -> int:
    return int.from_bytes(address, "big")


def _is_on_the_machine(address: bytes) -> bool:
    """Whether it is the sandbox's own, or everybody's who is next to it: loopback, unspecified, link-local, multicast.

    RFC 6890, RFC 4291.
    """
    if len(address) == 4:
        return address[0] in (0, 127) or address[0] >= 224 or address[:2] == b"\xa9\xfe"
    return address[:15] == bytes(15) or address[0] == 0xFF or (address[0] == 0xFE and address[1] & 0xC0 == 0x80)
