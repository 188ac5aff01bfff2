"""PYTEST_DONT_REWRITE. The resolver of a run's networks: a fork of the supervisor that answers at each gateway.

It is told on one socket what the networks are and who is on them, in the order in which that happened, and has a
socket for UDP and one for TCP in the namespace of each.
"""

from __future__ import annotations

import os
import select
import struct

from pytest_sandbox_runtime.kernel.light import signal, socket
from pytest_sandbox_runtime.kernel.processes import Prctl, close_range, prctl
from pytest_sandbox_runtime.network.names import Question, answer, reversed_name
from pytest_sandbox_runtime.supervisor.messages import receive, send, seqpacket_pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_CONTROL_FD = 3
_TCP_LIMIT = 65535
_MOST_ASKED = 64
_NOT_YET = (BlockingIOError, InterruptedError)


class Resolver:
    """The supervisor's end."""

    def __init__(self) -> None:
        self._channel, theirs = seqpacket_pair()
        self.pid = os.fork()
        if self.pid == 0:
            _run(theirs)
        theirs.close()

    def add(self, network: int, sockets: tuple[int, ...], *, asks_outside: bool) -> None:
        """Answer at ``sockets`` of a new network; what it does not know it may ask the machine's own resolvers."""
        self._tell(("add", network, asks_outside), sockets)

    def remove(self, network: int) -> None:
        """Forget a network."""
        self._tell(("remove", network))

    def name(self, network: int, who: str, names: tuple[str, ...], addresses: tuple[bytes, ...]) -> None:
        """Let ``names`` be those of ``who`` on ``network``, a sandbox or whatever can be reached over it."""
        self._tell(("name", network, who, names, addresses))

    def forget(self, network: int, who: str) -> None:
        """Let ``who`` have no names on ``network`` any more."""
        self._tell(("forget", network, who))

    def close(self) -> None:
        """Let it end."""
        self._channel.close()

    def _tell(self, message: tuple[Any, ...], fds: tuple[int, ...] = ()) -> None:
        try:
            send(self._channel, message, fds)
        except OSError:
            # It has died: names are still in the hosts files.
            return


class _Network:
    def __init__(self, udp: socket.socket, tcp: socket.socket, *, asks_outside: bool) -> None:
        self.asks_outside = asks_outside
        self.udp = udp
        self.tcp = tcp
        self.members: dict[str, tuple[tuple[str, ...], tuple[bytes, ...]]] = {}


class _Service:
    """The process's own side."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._networks: dict[int, _Network] = {}
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._asking: list[socket.socket] = []
        self._words: dict[str, Callable[..., None]] = {
            "add": self._add,
            "remove": self._remove,
            "name": self._name,
            "forget": self._forget,
        }
        self._watch(control, self._hear)

    def serve(self) -> None:
        while self._readers:
            for fd, _ in self._poll.poll():
                if fd in self._readers:
                    try:
                        self._readers[fd]()
                    except OSError:
                        # Whoever asked has gone, or the kernel had no memory: they ask again.
                        continue

    def _watch(self, one: socket.socket, read: Callable[[], None]) -> None:
        self._readers[one.fileno()] = read
        self._poll.register(one.fileno(), select.POLLIN)

    def _unwatch(self, one: socket.socket) -> None:
        self._poll.unregister(one.fileno())
        del self._readers[one.fileno()]
        one.close()

    def _hear(self) -> None:
        received = receive(self._control)
        if received is None:
            os._exit(0)
        (word, network, *operands), fds = received
        self._words[str(word)](network, *operands, *fds)

    def _add(self, network: int, asks_outside: bool, *fds: int) -> None:  # noqa: FBT001
        udp, tcp = (socket.socket(fileno=fd) for fd in fds)
        for one in (udp, tcp):
            one.setblocking(False)
        added = self._networks[network] = _Network(udp, tcp, asks_outside=asks_outside)
        self._watch(udp, lambda: self._answer_udp(added))
        self._watch(tcp, lambda: self._accept(added))

    def _remove(self, network: int) -> None:
        gone = self._networks.pop(network)
        self._unwatch(gone.udp)
        self._unwatch(gone.tcp)

    def _name(self, network: int, who: str, names: tuple[str, ...], addresses: tuple[bytes, ...]) -> None:
        self._networks[network].members[who] = names, addresses

    def _forget(self, network: int, who: str) -> None:
        self._networks[network].members.pop(who, None)

    def _answer_udp(self, network: _Network) -> None:
        query, asker = network.udp.recvfrom(4096)
        reply = self._answer(network, query, asker[0])
        if reply is None:
            self._ask_outside(query, lambda answered: network.udp.sendto(answered, asker))
        elif reply:
            network.udp.sendto(reply, asker)

    def _accept(self, network: _Network) -> None:
        fd, asker = network.tcp._accept()  # type: ignore[attr-defined]
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        pending = bytearray()
        self._watch(connection, lambda: self._answer_tcp(network, connection, asker[0], pending))

    def _answer_tcp(self, network: _Network, connection: socket.socket, asker: str, pending: bytearray) -> None:
        try:
            chunk = connection.recv(_TCP_LIMIT)
        except _NOT_YET:
            return
        except OSError:
            chunk = b""
        pending += chunk
        while chunk and len(pending) >= 2 and len(pending) >= 2 + (length := struct.unpack_from("!H", pending)[0]):
            query = bytes(pending[2 : 2 + length])
            reply = self._answer(network, query, asker, limit=_TCP_LIMIT)
            del pending[: 2 + length]
            if reply is None:
                self._ask_outside(query, lambda answered: connection.send(_framed(answered)))
            elif reply:
                connection.send(_framed(reply))
        if not chunk:
            self._unwatch(connection)

    def _ask_outside(self, query: bytes, give: Callable[[bytes], object]) -> None:
        """Ask the first of the machine's resolvers, and ``give`` what it says."""
        servers = _machines_resolvers()
        if not servers:
            return
        family = socket.AF_INET6 if ":" in servers[0] else socket.AF_INET
        asking = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        asking.connect((servers[0], 53))
        asking.send(query)

        def hear() -> None:
            try:
                give(asking.recv(_TCP_LIMIT))
            finally:
                self._asking.remove(asking)
                self._unwatch(asking)

        self._asking.append(asking)
        self._watch(asking, hear)
        if len(self._asking) > _MOST_ASKED:
            # Nobody has answered it for long.
            self._unwatch(self._asking.pop(0))

    def _answer(self, network: _Network, query: bytes, asker: str, limit: int = 0) -> bytes | None:
        try:
            question = Question(query)
        except ValueError:
            return b""
        zone: dict[str, list[bytes]] = {}
        names: dict[str, str] = {}
        for seen in self._seen_by(network, asker):
            for known, addresses in seen.members.values():
                for name in known:
                    zone.setdefault(name.lower(), []).extend(addresses)
                for address in addresses if known else ():
                    names[reversed_name(address)] = known[0]
        if network.asks_outside and question.name not in zone and question.name not in names:
            return None
        return answer(question, zone, names, limit=limit)

    def _seen_by(self, network: _Network, asker: str) -> list[_Network]:
        """Return the networks that who asks is on, the one over which it asks first."""
        address = socket.inet_pton(socket.AF_INET6, asker) if ":" in asker else socket.inet_pton(socket.AF_INET, asker)
        if address.startswith(b"\0" * 10 + b"\xff\xff"):
            address = address[12:]
        sandbox = next((name for name, (_, has) in network.members.items() if address in has), None)
        others = [one for one in self._networks.values() if one is not network and sandbox in one.members]
        return [network, *others]


def _framed(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message


def _machines_resolvers() -> list[str]:
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return [words[1] for line in file if (words := line.split())[:1] == ["nameserver"] and len(words) > 1]
    except OSError:
        return []


def _run(channel: socket.socket) -> None:
    try:
        prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if channel.fileno() != _CONTROL_FD:
            os.dup2(channel.fileno(), _CONTROL_FD, inheritable=False)
        close_range(_CONTROL_FD + 1)
        channel.detach()
        _Service(socket.socket(fileno=_CONTROL_FD)).serve()
    finally:
        os._exit(1)
