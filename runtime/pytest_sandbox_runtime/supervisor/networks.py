"""PYTEST_DONT_REWRITE. The networks of a run, who is on them, and by which names: the supervisor's side."""

from __future__ import annotations

import errno
import os

from pytest_sandbox_runtime.kernel.light import signal, socket
from pytest_sandbox_runtime.network.bridge import BRIDGE_NAME, GATEWAY, Bridge, Plan, addresses_of
from pytest_sandbox_runtime.network.names import HOST_GATEWAY, hosts_lines, spelled
from pytest_sandbox_runtime.network.namespaces import open_in
from pytest_sandbox_runtime.network.ports import forward, listen
from pytest_sandbox_runtime.network.topology import outlet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_sandbox_runtime.network.bridge import Port
    from pytest_sandbox_runtime.network.namespaces import Namespace, Namespaces
    from pytest_sandbox_runtime.network.watch import Watch

    Addresses = tuple[bytes, ...]
    Names = tuple[str, ...]

_LOCAL = b"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


class Member:
    """A sandbox that can be on networks: its namespace, and the file that it has at /etc/hosts."""

    def __init__(self, name: str, hostname: str, extra: bytes, namespace: Namespace, directory: str) -> None:
        self.name = name
        self.namespace = namespace
        self.ports: dict[int, Port] = {}
        self.has_joined = False
        self._hostname = hostname
        self._extra = extra
        self._size = 0
        self._hosts = os.open(f"{directory}/hosts", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)

    def close(self) -> None:
        """Write it no more."""
        os.close(self._hosts)

    def write_hosts(self, lines: list[bytes]) -> None:
        """Have itself and ``lines`` in the file, which is written in place: it is what the sandbox has mounted."""
        own = hosts_lines(((self._hostname,), port.addresses) for port in self.ports.values())
        text = b"".join((_LOCAL, own, *lines, self._extra))
        os.pwrite(self._hosts, text, 0)
        if len(text) < self._size:
            os.ftruncate(self._hosts, len(text))
        self._size = len(text)


class _Network:
    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.members: dict[str, Member] = {}
        self.names: dict[str, tuple[Names, Addresses]] = {}
        self.lines = b""
        self.is_current = True
        self.joined = 0
        # What is behind the bridge: names with the address that each has, and the processes that forward, or capture.
        self.outlets: dict[str, bytes] = {HOST_GATEWAY: addresses_of(bridge.plan, GATEWAY)[0]}
        self.forwarders: list[int] = []

    def name(self, who: str, names: Names, addresses: Addresses) -> None:
        self.names[who] = names, addresses
        self.lines += hosts_lines(((names, addresses),))

    def forget(self, who: str) -> None:
        if self.names.pop(who, None) is not None:
            self.lines = hosts_lines(self.names.values())


class Networks:
    """All networks of a run, by number; ``watch`` is told of each, and of who is on it."""

    def __init__(self, namespaces: Namespaces, watch: Watch) -> None:
        self._namespaces = namespaces
        self._watch = watch
        self._networks: dict[int, _Network] = {}
        self._made = 0
        # How many sandboxes a network is mostly joined by.
        self._usual = 2
        # Made, while nobody waits, of the plan that was asked for last.
        self._last: Plan | None = None
        self._spare: Bridge | None = None

    @property
    def is_any_filling(self) -> bool:
        """Whether a network has had fewer sandboxes than the last one that was closed."""
        return any(network.joined < self._usual for network in self._networks.values())

    def get_ahead(self) -> bool:
        """Do what nobody waits for: returns whether there was anything to do. Raises OSError."""
        for network in self._networks.values():
            if not network.is_current:
                self._write_hosts(network)
                return True
        if self._last is None or self._spare is not None:
            return False
        plan, self._last = self._last, None
        if plan.slirp:
            return False
        self._spare = Bridge(plan, self._namespaces)
        return True

    def _take(self, plan: Plan) -> Bridge:
        spare, self._spare = self._spare, None
        if spare is not None and spare.plan != plan:
            spare.close(self._namespaces)
            spare = None
        self._last = plan
        return spare or Bridge(plan, self._namespaces)

    def open(self, plan: Plan) -> int:
        """Make a network; returns its number. Raises OSError."""
        network = _Network(self._take(plan))
        self._made += 1
        self._networks[self._made] = network
        self._watch.add(self._made, plan, network.bridge.namespace.sockets[1:])
        return self._made

    def close(self, number: int) -> None:
        """End a network; the devices of those that are on it go with it."""
        network = self._networks.pop(number)
        self._usual = network.joined
        for forwarder in network.forwarders:
            os.kill(forwarder, signal.SIGKILL)
        self._watch.remove(number)
        network.bridge.close(self._namespaces)
        for member in network.members.values():
            del member.ports[number]
            self._tell(member)

    def join(self, member: Member, number: int, names: Names, wanted: int | None) -> tuple[str, ...]:
        """Put ``member`` on a network; returns its addresses there. Raises OSError: see Bridge.attach."""
        network = self._known(number)
        member.has_joined = True
        port = network.bridge.attach(member.namespace, len(member.ports), wanted)
        member.ports[number] = port
        network.members[member.name] = member
        network.joined += 1
        self.name(number, member.name, names, port.addresses)
        return tuple(map(spelled, port.addresses))

    def leave(self, member: Member) -> None:
        """Take a sandbox that has gone, or is about to, off all its networks. Again: nothing."""
        ports, member.ports = member.ports, {}
        for number, port in ports.items():
            network = self._networks[number]
            network.bridge.detach(port)
            del network.members[member.name]
            network.forget(member.name)
            self._watch.forget(number, member.name)
            network.is_current = False

    def name(self, number: int, who: str, names: Names, addresses: Addresses) -> None:
        """Let ``names`` stand for ``addresses``, of ``who`` is on a network or can be reached over it."""
        network = self._networks[number]
        network.name(who, names, addresses)
        self._watch.name(number, who, names, addresses)
        self._write_hosts(network)

    def open_outlet(self, number: int, name: str, port: int, target: tuple[object, ...]) -> str:
        """Let ``port`` of ``name`` lead from a network to ``target`` on the machine; returns its address there.

        Raises OSError, with EADDRINUSE where that port leads somewhere already.
        """
        network, who = self._known(number), outlet(name)
        if name not in network.outlets:
            network.outlets[name] = network.bridge.add_host()
            self.name(number, who, (name,), (network.outlets[name],))
        address = spelled(network.outlets[name])
        (fd,) = open_in(network.bridge.namespace, lambda: (listen("tcp", address, port).detach(),))
        listener = socket.socket(fileno=fd)
        try:
            network.forwarders.append(forward(listener, target, None))
        finally:
            listener.close()
        self._watch.open(number, who, port)
        return address

    def capture(self, number: int, file: int, control: int, how: tuple[int, int]) -> None:
        """Write what crosses a network to ``file``: see network.capture. Raises OSError where it has gone."""
        from pytest_sandbox_runtime.network.capture import How, capture

        network = self._networks.get(number)
        if network is None:
            raise OSError(errno.ESRCH, "", "")
        namespace = network.bridge.namespace.descriptor
        network.forwarders.append(capture(namespace, -1, BRIDGE_NAME, file, control, How(*how)))

    def _known(self, number: int) -> _Network:
        if number not in self._networks:
            # Another client has closed it.
            raise OSError(errno.ENETDOWN, "", "")
        return self._networks[number]

    def reaped(self, pid: int) -> None:
        """Forget a process that has ended."""
        for network in self._networks.values():
            if pid in network.forwarders:
                network.forwarders.remove(pid)
            if pid == network.bridge.slirp:
                network.bridge.slirp = None

    def _write_hosts(self, network: _Network) -> None:
        network.is_current = True
        for member in network.members.values():
            self._tell(member)

    def _tell(self, member: Member) -> None:
        member.write_hosts([self._networks[number].lines for number in member.ports])
