"""PYTEST_DONT_REWRITE. Requests of rtnetlink(7) as bytes, and a socket that asks them.

A sandbox's network is five of them. pyroute2 says the same, and is the oracle of the tests, but takes 280 ms to
import: a hundred times what the kernel needs to do it.
"""

from __future__ import annotations

import struct

from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.light import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NEWLINK, DELLINK, GETLINK, NEWADDR, NEWROUTE = 16, 17, 18, 20, 24
_REQUEST, _ACK, _REPLACE, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_ERROR = 2
_NESTED = 0x8000
UP = 0x1
# Of <linux/if_link.h>, <linux/veth.h>, <linux/if_addr.h> and <linux/rtnetlink.h>.
_ADDRESS, _NAME, _MTU, _MASTER, _INFO, _NAMESPACE = 1, 3, 4, 10, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_MULTICAST_SNOOPING = 23
_IFA_ADDRESS, _IFA_LOCAL, _NO_DAD = 1, 2, 0x02
_LINK_GROUP = 1
_STATISTICS, _STATE, _STATE_UP = 7, 16, 6
_GATEWAY, _OUT, _MAIN_TABLE, _BOOT, _UNIVERSE, _UNICAST = 5, 4, 254, 3, 0, 1


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded."""
    return struct.pack("HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def _nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("I", value))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _link(index: int, *, up: bool) -> bytes:
    return struct.pack("BxHiII", 0, 0, index, UP if up else 0, UP if up else 0)


def _request(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("IHHII", 16 + len(body), kind, flags | _REQUEST | _ACK, 0, 0) + body


def add_bridge(index: int, name: str, mac: bytes, mtu: int) -> bytes:
    """Return the request for a bridge that is up."""
    # Without snooping a bridge floods multicast, which IPv6 finds its neighbours by, from the first moment on.
    data = _nested(_INFO_DATA, attribute(_MULTICAST_SNOOPING, b"\0"))
    info = _nested(_INFO, _text(_INFO_KIND, "bridge"), data)
    body = _link(index, up=True) + _text(_NAME, name) + attribute(_ADDRESS, mac) + _number(_MTU, mtu) + info
    return _request(NEWLINK, _CREATE | _EXCLUSIVE, body)


def add_veth(index: int, master: int, peer: int, peer_name: str, mac: bytes, namespace: int, mtu: int) -> bytes:
    """Return the request for a pair: one end up and a port of ``master``, the other where ``namespace`` leads."""
    # The peer cannot be up before its other end is there.
    other = _link(peer, up=False) + _text(_NAME, peer_name) + attribute(_ADDRESS, mac) + _number(_MTU, mtu)
    other += _number(_NAMESPACE, namespace)
    info = _nested(_INFO, _text(_INFO_KIND, "veth"), _nested(_INFO_DATA, _nested(_VETH_PEER, other)))
    body = _link(index, up=True) + _text(_NAME, f"port{index}") + _number(_MASTER, master) + _number(_MTU, mtu) + info
    return _request(NEWLINK, _CREATE | _EXCLUSIVE, body)


def raise_link(index: int) -> bytes:
    """Return the request that brings a device up."""
    return _request(NEWLINK, 0, _link(index, up=True))


def join_bridge(name: str, master: int) -> bytes:
    """Return the request by which the device ``name`` is up, and a port of ``master``."""
    return _request(NEWLINK, 0, _link(0, up=True) + _text(_NAME, name) + _number(_MASTER, master))


def leave_bridge(index: int) -> bytes:
    """Return the request by which a port belongs to no bridge any more."""
    return _request(NEWLINK, 0, _link(index, up=False) + _number(_MASTER, 0))


def add_address(index: int, address: bytes, prefix: int) -> bytes:
    """Return the request for an address, IPv4 or IPv6 by its length, that can be used at once."""
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    head = struct.pack("BBBBI", family, prefix, _NO_DAD, _UNIVERSE, index)
    return _request(
        NEWADDR, _CREATE | _EXCLUSIVE, head + attribute(_IFA_LOCAL, address) + attribute(_IFA_ADDRESS, address)
    )


def add_default_route(gateway: bytes, index: int) -> bytes:
    """Return the request for the way to everywhere else."""
    family = socket.AF_INET if len(gateway) == 4 else socket.AF_INET6
    head = struct.pack("BBBBBBBBI", family, 0, 0, 0, _MAIN_TABLE, _BOOT, _UNIVERSE, _UNICAST, 0)
    return _request(NEWROUTE, _CREATE | _REPLACE, head + attribute(_GATEWAY, gateway) + _number(_OUT, index))


class Route:
    """A socket of rtnetlink(7), which acts on the network namespace that it was made in, whoever uses it."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def ask(self, requests: Iterable[bytes], subject: str) -> None:
        """Have the kernel carry out ``requests`` in their order, all of them; raises the first's SyscallError."""
        requests = tuple(requests)
        self._socket.send(b"".join(requests))
        refused = 0
        for _ in requests:
            answer = self._socket.recv(65536)
            (code,) = struct.unpack_from("i", answer, 16)
            refused = refused or -code
        if refused:
            raise SyscallError("netlink", refused, subject)

    def packets_sent(self, index: int) -> int:
        """Return how many packets a device has sent, or -1 where that is not told."""
        statistics = self._attribute(index, _STATISTICS)
        # struct rtnl_link_stats: packets received, packets sent.
        return -1 if statistics is None else int(struct.unpack_from("II", statistics)[1])

    def is_operational(self, index: int) -> bool:
        """Return whether what is sent to a device goes through it, and is not dropped yet."""
        state = self._attribute(index, _STATE)
        return state is not None and state[0] == _STATE_UP

    def _attribute(self, index: int, wanted: int) -> bytes | None:
        body = _link(index, up=False)
        self._socket.send(struct.pack("IHHII", 16 + len(body), GETLINK, _REQUEST, 0, 0) + body)
        answer = self._socket.recv(65536)
        at = 32
        while at + 4 <= len(answer):
            length, kind = struct.unpack_from("HH", answer, at)
            if kind == wanted:
                return answer[at + 4 : at + length]
            at += max(4, (length + 3) & ~3)
        return None


def open_route() -> int:
    """Return the descriptor of a socket for Route, of this process's network namespace."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0).detach()


def open_changes() -> int:
    """Return the descriptor of a socket that is readable when a device of this network namespace has changed."""
    changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    changes.bind((0, _LINK_GROUP))
    return changes.detach()
