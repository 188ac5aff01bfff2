"""PYTEST_DONT_REWRITE. One network: a namespace of its own with a bridge, and sandboxes that are its ports.

Of its own, so that networks of parallel tests may have the same addresses, and as its end is then that of a descriptor:
to delete a bridge takes the kernel 36 ms, and to close its namespace 4 microseconds.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import time
from collections import namedtuple

from pytest_sandbox_runtime.kernel.light import signal, socket
from pytest_sandbox_runtime.network import netlink, outside
from pytest_sandbox_runtime.network.namespaces import Namespace, Namespaces, close

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Numbers of devices are given, not found out: a kernel may put tunnels into each new namespace.
_BRIDGE = 1000
BRIDGE_NAME = "bridge"
_INTERFACE = 100
GATEWAY = 1
DNS_PORT = 53
# Among the sockets of a network's namespace; those for DNS are behind it.
_CHANGES = 0
# Seconds for what takes a tenth of a millisecond.
_PATIENCE = 1.0

# What a network is made of: the first address of IPv4 and IPv6 (b"" for none) as numbers of 4 and 16 bytes, with the
# lengths of their prefixes, and the program that leads to the internet, "" for none.
Plan = namedtuple("Plan", "net4 prefix4 net6 prefix6 mtu slirp")
# A port: its device, the number of its host in the network, and its addresses.
Port = namedtuple("Port", "index host addresses")


class Bridge:
    """A network that is up."""

    def __init__(self, plan: Plan, namespaces: Namespaces) -> None:
        self.plan = plan
        self._next = _BRIDGE
        self._own = {GATEWAY, *((outside.ROUTER, outside.NAMES) if plan.slirp else ())}
        self._hosts = set(self._own)
        self.slirp: int | None = None
        # The ports of sandboxes that have gone, by the hosts that they were.
        self._left: dict[int, int] = {}
        namespace = namespaces.make(_open_sockets)
        try:
            _fill(namespace, plan)
            if plan.slirp:
                self.slirp = self._lead_outside(namespace)
        except OSError:
            close(namespace)
            raise
        self.namespace = namespace

    def _lead_outside(self, namespace: Namespace) -> int:
        plan = self.plan
        subnet = f"{socket.inet_ntoa(plan.net4)}/{plan.prefix4}"
        pid = outside.start(plan.slirp, namespace.descriptor, subnet, plan.mtu)
        namespace.route.ask((netlink.join_bridge(outside.TAP, _BRIDGE),), "the way to the internet")
        return pid

    def close(self, namespaces: Namespaces) -> None:
        """End it, and with it the devices of those that are on it."""
        if self.slirp is not None:
            os.kill(self.slirp, signal.SIGKILL)
        if self._hosts - self._own:
            # They are to notice.
            close(self.namespace)
        else:
            namespaces.retire(self.namespace)

    def attach(self, namespace: Namespace, number: int, wanted: int | None) -> Port:
        """Give ``namespace`` a device ``eth<number>`` on this network, as the host ``wanted`` or the first free one.

        Raises OSError, with EADDRINUSE where the host is taken and EADDRNOTAVAIL where all are.
        """
        host = self._reserve(wanted)
        self._unplug(host)
        try:
            port = self._plug(namespace, number, host)
        except OSError:
            self._hosts.discard(host)
            raise
        return port

    def _reserve(self, wanted: int | None) -> int:
        last = (1 << (32 - self.plan.prefix4)) - 2
        if wanted is None:
            wanted = next((host for host in range(GATEWAY + 1, last + 1) if host not in self._hosts), None)
            if wanted is None:
                raise OSError(errno.EADDRNOTAVAIL, "", "")
        elif wanted in self._hosts:
            raise OSError(errno.EADDRINUSE, "", "")
        self._hosts.add(wanted)
        return wanted

    def _plug(self, namespace: Namespace, number: int, host: int) -> Port:
        self._next += 1
        index, inside, plan = self._next, _INTERFACE + number, self.plan
        pair = netlink.add_veth(
            index, _BRIDGE, inside, f"eth{number}", mac_of(plan, host), namespace.descriptor, plan.mtu
        )
        self.namespace.route.ask((pair,), "a device on the network")
        addresses = addresses_of(plan, host)
        requests = [netlink.raise_link(inside), *_addresses(inside, plan, host)]
        if plan.slirp and number == 0:
            requests.append(netlink.add_default_route(addresses_of(plan, outside.ROUTER)[0], inside))
        namespace.route.ask(requests, "the addresses of a device")
        self._await_operational(index)
        return Port(index, host, addresses)

    def _await_operational(self, index: int) -> None:
        """Wait until packets go through a device: the kernel sees to that a little later, and drops earlier ones."""
        changes = self.namespace.sockets[_CHANGES]
        poll = select.poll()
        poll.register(changes, select.POLLIN)
        deadline = time.monotonic() + _PATIENCE
        while not self.namespace.route.is_operational(index) and time.monotonic() < deadline:
            poll.poll(_PATIENCE * 1000)
            try:
                while os.read(changes, 65536):
                    pass
            except OSError:
                # All was read, or more has happened than there was room for: ENOBUFS.
                continue

    def detach(self, port: Port) -> None:
        """Free the address of a sandbox that has gone."""
        self._hosts.discard(port.host)
        self._left[port.host] = port.index

    def add_host(self) -> bytes:
        """Give the bridge itself one more address, the last that is free; returns it. Raises OSError."""
        last = (1 << (32 - self.plan.prefix4)) - 2
        host = next((host for host in range(last, GATEWAY, -1) if host not in self._hosts), None)
        if host is None:
            raise OSError(errno.EADDRNOTAVAIL, "", "")
        address = addresses_of(self.plan, host)[0]
        self.namespace.route.ask((netlink.add_address(_BRIDGE, address, 32),), "an address of the bridge")
        self._hosts.add(host)
        self._own.add(host)
        return address

    def _unplug(self, host: int) -> None:
        # The namespace of who had this address ends a little after its processes, and would answer to it meanwhile.
        index = self._left.pop(host, None)
        if index is not None:
            try:
                self.namespace.route.ask((netlink.leave_bridge(index),), "a port")
            except OSError:
                return


def _fill(namespace: Namespace, plan: Plan) -> None:
    bridge = netlink.add_bridge(_BRIDGE, BRIDGE_NAME, mac_of(plan, GATEWAY), plan.mtu)
    namespace.route.ask((bridge, *_addresses(_BRIDGE, plan, GATEWAY)), "the bridge of a network")


def _addresses(index: int, plan: Plan, host: int) -> list[bytes]:
    prefixes = (plan.prefix4, plan.prefix6)
    return [
        netlink.add_address(index, address, prefix)
        for address, prefix in zip(addresses_of(plan, host), prefixes)  # noqa: B905  one has no IPv6
    ]


def addresses_of(plan: Plan, host: int) -> tuple[bytes, ...]:
    """Return the addresses of a host of a network, of IPv4 first."""
    (first,) = struct.unpack("!I", plan.net4)
    address = struct.pack("!I", first + host)
    if not plan.net6:
        return (address,)
    return address, plan.net6[:-4] + struct.pack("!I", host)


def mac_of(plan: Plan, host: int) -> bytes:
    """Return the hardware address of a host, the same in every run: of our own making, and with its IPv4 address."""
    return b"\x02\x42" + addresses_of(plan, host)[0]


def _open_sockets() -> tuple[int, ...]:
    """Return what tells of changes, and the sockets at which this namespace can be asked for names, by UDP and TCP."""
    sockets = [netlink.open_changes()]
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        one = _open(kind)
        if kind == socket.SOCK_STREAM:
            one.listen(64)
        sockets.append(one.detach())
    return tuple(sockets)


def _open(kind: int) -> Any:
    try:
        both = socket.socket(socket.AF_INET6, kind | socket.SOCK_CLOEXEC)
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        both.bind(("::", DNS_PORT))
    except OSError:
        # A kernel without IPv6.
        only = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
        only.bind(("0.0.0.0", DNS_PORT))  # noqa: S104  of a namespace that has the network only
        return only
    return both
