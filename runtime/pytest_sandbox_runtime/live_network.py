"""PYTEST_DONT_REWRITE. The live handle of a network, which sandboxes join when they start, or later."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from pytest_sandbox_runtime.errors import SandboxClosedError, SpecError, StartError
from pytest_sandbox_runtime.handle import Handle
from pytest_sandbox_runtime.network.addresses import choose, host_of, plan
from pytest_sandbox_runtime.specs.network import check_name, parse_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ipaddress import IPv4Network

    from typing_extensions import Self

    from pytest_sandbox_runtime.authority import Authority
    from pytest_sandbox_runtime.capturing import Capture
    from pytest_sandbox_runtime.connection import Connection
    from pytest_sandbox_runtime.sandbox import Sandbox
    from pytest_sandbox_runtime.specs.network import Network


class Join(NamedTuple):
    """How a sandbox is on a network: by which further names, and at which address where it matters."""

    network: LiveNetwork
    aliases: tuple[str, ...] = ()
    ip: str | None = None


class LiveNetwork(Handle):
    """A network that is up: only Engine.network makes one.

    ``subnet`` and ``gateway`` are its addresses as they are written.
    """

    def __init__(
        self,
        spec: Network,
        connection: Connection,
        others: Iterable[LiveNetwork],
        authority: Authority | None,
        tell_members: Callable[[LiveNetwork], None],
    ) -> None:
        self.spec = spec
        self._authority = authority
        self._tell_members = tell_members
        # Whether something on it speaks TLS by the run's own authority.
        self.trusts_authority = False
        self._connection = connection
        # What it is shared by, where it is.
        self._key = ""
        self._captures: list[Capture] = []
        self._subnet = choose(spec, (other.range for other in others))
        (_, number), _ = connection.ask(("network", tuple(plan(spec, self._subnet))))
        self.number: int | None = int(number)
        try:
            for place in spec.allow:
                name, port = parse_place(place)
                self.open_outlet(name, port, ("name", name, port))
        except BaseException:
            self.close()
            raise

    @classmethod
    def shared(cls, spec: Network, number: int, connection: Connection, key: str) -> Self:
        """Return the handle of one that somebody has made for all clients of the run, by the ``key`` it is shared."""
        network = cls.__new__(cls)
        network.spec, network.number = spec, number
        network._connection, network._key = connection, key
        network._authority, network.trusts_authority = None, False
        network._subnet = choose(spec, ())
        network._captures = []
        return network

    def __repr__(self) -> str:
        state = "closed" if self.number is None else "open"
        return f"<LiveNetwork {self.name} {self.subnet} {state}>"

    @property
    def _is_forgotten(self) -> bool:
        return getattr(self, "number", None) is not None and self._connection.is_open and self._connection.is_ours

    def close(self) -> None:
        """End it: the sandboxes that are on it go on without. Again: nothing."""
        number, self.number = self.number, None
        if number is not None:
            for capture in self._captures:
                capture.stop()
            self._connection.tell(("release", self._key) if self._key else ("close network", number))

    @property
    def name(self) -> str:
        """The name that it was declared with, or a number."""
        return self.spec.name or f"network-{self.number}"

    @property
    def range(self) -> IPv4Network:
        """The subnet, to calculate with."""
        return self._subnet

    @property
    def subnet(self) -> str:
        """The subnet of IPv4, as in "10.77.0.0/24"."""
        return str(self._subnet)

    @property
    def gateway(self) -> str:
        """The address that answers DNS, and that "host-gateway" is: see ``expose``."""
        return str(self._subnet.network_address + 1)

    def expose(self, name: str, host_port: int, *, port: int | None = None, tls: bool = False) -> None:
        """Let ``port`` of ``name`` lead from this network to ``host_port`` on this machine's loopback device.

        The port is the same where it is left out. So a server in the test itself stands for any on the internet:
        ``network.expose("api.example.org", server.server_port, port=80)``. The name "host-gateway" is the network's own
        ``gateway``, which is what compose files mean by it. With ``tls`` it speaks TLS to the sandboxes,
        as that name and by an authority of the run that those on this network trust, and plainly to the server. Raises
        SpecError, and UnsupportedError where trustme is missing.
        """
        check_name(name, "a name by which a server could be found")
        for number in (host_port, port or host_port):
            if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 65536:
                raise SpecError(f"port {number!r} is no number from 1 to 65535")
        here = ("127.0.0.1", "::1")
        if not tls:
            self.open_outlet(name, port or host_port, ("tcp", here, host_port))
            return
        if self._authority is None:
            raise SpecError(f"{self.name} is shared by the whole run, which trusts no authority of one of its users")
        self.open_outlet(name, port or host_port, ("tls", here, host_port, self._authority.certificate(name)))
        self.trusts_authority = True
        self._tell_members(self)

    def open_outlet(self, name: str, port: int, target: tuple[object, ...]) -> None:
        """Let ``port`` of ``name`` lead out to ``target``, as network.ports has it."""
        if self.number is None:
            raise SandboxClosedError(f"{self!r} was closed")
        try:
            self._connection.ask(("outlet", self.number, name.lower(), port, target))
        except StartError as error:
            if error.code == errno.EADDRINUSE:
                raise SpecError(f"port {port} of {name} leads somewhere already on {self.name}") from None
            raise refusal(error.code, (Join(self),)) or error from None

    def capture(
        self, path: str | os.PathLike[str] | None = None, *, snaplen: int | None = None, buffer: int | None = None
    ) -> Capture:
        """Write all that is sent on this network, each packet once, to a pcap file from now on: see Sandbox.capture."""
        from pytest_sandbox_runtime.capturing import begin

        if self.number is None:
            raise SandboxClosedError(f"{self!r} was closed")
        self._captures.append(capture := begin(self._connection, self.number, path, snaplen, buffer))
        return capture

    def connect(self, sandbox: Sandbox, *aliases: str, ip: str | None = None) -> tuple[str, ...]:
        """Put a sandbox that runs, and was started on another network, on this one too; returns its addresses here.

        Raises SpecError where it cannot be.
        """
        join = self.join(*aliases, ip=ip)
        check((*(there for there, _ in sandbox.joins), join))
        try:
            (_, addresses), _ = self._connection.ask(("join", sandbox.name, request(join, sandbox.own_hostname)))
        except StartError as error:
            if error.code == errno.ENODEV:
                msg = f"sandbox {sandbox.name} was started on no network, and can join none later"
                raise SpecError(msg) from None
            raise refusal(error.code, (join,)) or error from None
        sandbox.joins.append((join, addresses))
        return tuple(addresses)

    def join(self, *aliases: str, ip: str | None = None) -> Join:
        """Return how a sandbox that is to start will be on this network: see Engine.create. Raises SpecError."""
        for alias in aliases:
            check_name(alias, "a name by which a sandbox could be found")
        if ip is not None:
            host_of(ip, self._subnet)
        return Join(self, aliases, ip)


def request(join: Join, hostname: str | None) -> tuple[int, tuple[str, ...], int | None]:
    """Return ``join`` of a sandbox with a ``hostname`` of its own, if it has one, as the supervisor is told it."""
    network = join.network
    if network.number is None:
        raise SandboxClosedError(f"{network!r} was closed")
    names = tuple(dict.fromkeys([*([hostname] if hostname else ()), *join.aliases]))
    return network.number, names, None if join.ip is None else host_of(join.ip, network.range)


def check(joins: tuple[Join, ...]) -> None:
    """Raise SpecError where no sandbox can be on all those networks."""
    for index, join in enumerate(joins):
        for other in joins[:index]:
            if join.network.range.overlaps(other.network.range):
                msg = (
                    f"no sandbox can be on two networks that overlap: {other.network.subnet} and {join.network.subnet}"
                )
                raise SpecError(msg)


def refusal(code: int, joins: tuple[Join, ...]) -> SpecError | None:
    """Return what the supervisor's errno for a join means, where that is something to be said better."""
    where = ", ".join(f"{join.network.name} ({join.network.subnet})" for join in joins)
    if code == errno.EADDRNOTAVAIL:
        return SpecError(f"no address is free on {where}", hint="close sandboxes, or give the network a larger subnet=")
    if code == errno.EADDRINUSE:
        wanted = ", ".join(join.ip for join in joins if join.ip)
        return SpecError(f"{wanted} is taken on {where}", hint=os.strerror(code))
    return None
