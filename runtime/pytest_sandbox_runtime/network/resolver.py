"""PYTEST_DONT_REWRITE. DNS for the sandboxes of a run: at the gateway of each network, and in each one's own namespace.

Known are those who are on the same networks, and what can be reached over these; of the rest a network that leads
outside asks the machine's own resolvers.
"""

from __future__ import annotations

import struct

from pytest_sandbox_runtime.kernel.light import socket
from pytest_sandbox_runtime.network.names import PTR, Question, answer, reversed_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.network.loop import Loop
    from pytest_sandbox_runtime.network.topology import Known, Topology

_TCP_LIMIT = 65535
_UDP_LIMIT = 4096
_MOST_ASKED = 64
_NOT_YET = (BlockingIOError, InterruptedError)


class Resolver:
    """Tells ``refuse`` which sandbox has asked for a name outside, where none may be reached."""

    def __init__(self, loop: Loop, topology: Topology, refuse: Callable[[str, str], None]) -> None:
        self._loop = loop
        self._topology = topology
        self._refuse = refuse
        self._sockets: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._own: dict[int, socket.socket] = {}
        self._asking: list[socket.socket] = []

    def open(self, number: int, *fds: int) -> None:
        """Answer at the two sockets of a network, of UDP and TCP."""
        udp, tcp = self._sockets[number] = socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1])
        network = self._topology.networks[number]
        for one in (udp, tcp):
            one.setblocking(False)
        self._loop.watch(udp.fileno(), lambda _: self._answer_udp(network, udp))
        self._loop.watch(tcp.fileno(), lambda _: self._accept(network, tcp))

    def close(self, number: int) -> None:
        """Answer no more on a network."""
        for one in self._sockets.pop(number):
            self._close(one)

    def open_for(self, sandbox: str, *fds: int) -> None:
        """Answer one sandbox at the sockets of UDP that it has for itself."""
        for fd in fds:
            one = self._own[fd] = socket.socket(fileno=fd)
            self._loop.watch(fd, lambda _, one=one: self._answer_one(sandbox, one))  # type: ignore[misc]

    def close_for(self, *fds: int) -> None:
        """Answer no more at a sandbox's own sockets."""
        for fd in fds:
            self._close(self._own.pop(fd))

    def _close(self, one: socket.socket) -> None:
        self._loop.unwatch(one.fileno())
        one.close()

    def _answer_one(self, sandbox: str, one: socket.socket) -> None:
        query, asker = one.recvfrom(_UDP_LIMIT)
        self._answer_datagram(one, asker, query, sandbox, self._topology.of(sandbox))

    def _answer_udp(self, network: Known, udp: socket.socket) -> None:
        query, asker = udp.recvfrom(_UDP_LIMIT)
        self._answer_datagram(udp, asker, query, *self._seen_by(network, asker[0]))

    def _answer_datagram(
        self, one: socket.socket, asker: object, query: bytes, sandbox: str | None, seen: list[Known]
    ) -> None:
        reply = self._answer(query, sandbox, seen)
        if reply is None:
            self._ask_outside(query, lambda answered: one.sendto(answered, asker))  # type: ignore[call-overload]
        elif reply:
            one.sendto(reply, asker)  # type: ignore[call-overload]

    def _accept(self, network: Known, tcp: socket.socket) -> None:
        fd, asker = tcp._accept()  # type: ignore[attr-defined]
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        pending = bytearray()
        self._loop.watch(fd, lambda _: self._answer_tcp(network, connection, asker[0], pending))

    def _answer_tcp(self, network: Known, connection: socket.socket, asker: str, pending: bytearray) -> None:
        try:
            chunk = connection.recv(_TCP_LIMIT)
        except _NOT_YET:
            return
        except OSError:
            chunk = b""
        pending += chunk
        while chunk and len(pending) >= 2 and len(pending) >= 2 + (length := struct.unpack_from("!H", pending)[0]):
            query = bytes(pending[2 : 2 + length])
            reply = self._answer(query, *self._seen_by(network, asker), limit=_TCP_LIMIT)
            del pending[: 2 + length]
            if reply is None:
                self._ask_outside(query, lambda answered: connection.send(_framed(answered)))
            elif reply:
                connection.send(_framed(reply))
        if not chunk:
            self._close(connection)

    def _ask_outside(self, query: bytes, give: Callable[[bytes], object]) -> None:
        """Ask the first of the machine's resolvers, and ``give`` what it says."""
        servers = _machines_resolvers()
        if not servers:
            return
        family = socket.AF_INET6 if ":" in servers[0] else socket.AF_INET
        asking = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        asking.connect((servers[0], 53))
        asking.send(query)

        def hear(_: bool) -> None:  # noqa: FBT001
            try:
                give(asking.recv(_TCP_LIMIT))
            finally:
                self._asking.remove(asking)
                self._close(asking)

        self._asking.append(asking)
        self._loop.watch(asking.fileno(), hear)
        if len(self._asking) > _MOST_ASKED:
            # Nobody has answered it for long.
            self._close(self._asking.pop(0))

    def _answer(self, query: bytes, sandbox: str | None, seen: list[Known], limit: int = 0) -> bytes | None:
        """Return what to reply, nothing at all where that is b"", and what is said outside where it is None."""
        try:
            question = Question(query)
        except ValueError:
            return b""
        zone: dict[str, list[bytes]] = {}
        names: dict[str, str] = {}
        for network in seen:
            for known, addresses in network.members.values():
                for name in known:
                    zone.setdefault(name.lower(), []).extend(addresses)
                for address in addresses if known else ():
                    names[reversed_name(address)] = known[0]
        if question.name not in zone and question.name not in names:
            if any(network.leads_outside for network in seen):
                return None
            # A name of one label is of nobody outside.
            if sandbox is not None and "." in question.name and question.kind != PTR:
                self._refuse(sandbox, question.name)
        return answer(question, zone, names, limit=limit)

    def _seen_by(self, network: Known, asker: str) -> tuple[str | None, list[Known]]:
        """Return who asks, and the networks that it is on, the one over which it asks first."""
        address = socket.inet_pton(socket.AF_INET6, asker) if ":" in asker else socket.inet_pton(socket.AF_INET, asker)
        if address.startswith(b"\0" * 10 + b"\xff\xff"):
            address = address[12:]
        sandbox = network.who_has(address)
        others = [one for one in self._topology.of(sandbox) if one is not network]
        return sandbox, [network, *others]


def _framed(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message


def _machines_resolvers() -> list[str]:
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return [words[1] for line in file if (words := line.split())[:1] == ["nameserver"] and len(words) > 1]
    except OSError:
        return []
