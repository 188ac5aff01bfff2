"""PYTEST_DONT_REWRITE. Network namespaces with a loopback device and nothing else: network_namespaces(7).

The kernel makes and unmakes one for longer than all the rest of a sandbox. Who lacks CAP_NET_ADMIN in one can leave no
trace in it but by packets, and there is one device to send them to: a namespace whose loopback device has sent none is
as new when all processes in it are dead, and is used for another sandbox.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections import namedtuple

from pytest_sandbox_runtime.kernel.light import socket
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.supervisor.messages import receive, send, seqpacket_pair

_SPARE = 4
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
# rtnetlink(7): a request for what there is to say of device 1, which is lo in every namespace.
_RTM_GETLINK, _NLM_F_REQUEST, _IFLA_STATS = 18, 1, 7
_REQUEST = struct.pack("IHHII BxHiII", 32, _RTM_GETLINK, _NLM_F_REQUEST, 0, 0, 0, 0, 1, 0, 0)
_HEADERS = 32

# The namespace's descriptor, and a netlink socket in it.
Network = namedtuple("Network", "namespace route")


class Networks:
    """Namespaces that are as new."""

    def __init__(self) -> None:
        self._spare: list[Network] = []

    def take(self) -> Network:
        """Return one; raises OSError."""
        return self._spare.pop() if self._spare else _make()

    def give_back(self, network: Network) -> None:
        """Keep ``network``, whose processes are dead, for another if no packet was ever sent in it."""
        if len(self._spare) < _SPARE and _packets(network) == 0:
            self._spare.append(network)
        else:
            os.close(network.namespace)
            network.route.close()


def _make() -> Network:
    # In a fork, as an ordinary user's supervisor would not get back to the host's network.
    ours, theirs = seqpacket_pair()
    pid = os.fork()
    if pid == 0:
        _tell_of_new(theirs)
    theirs.close()
    received = receive(ours)
    ours.close()
    os.waitpid(pid, 0)
    if received is None:
        raise OSError(0, "died while it was made", "network namespace")
    (code,), fds = received
    if code:
        raise OSError(code, os.strerror(int(str(code))), "network namespace")
    return Network(fds[0], socket.socket(fileno=fds[1]))


def _tell_of_new(channel: socket.socket) -> None:
    try:
        unshare(CloneFlag.NEWNET)
        raise_loopback()
        namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        send(channel, (0,), (namespace, route.fileno()))
    except OSError as error:
        send(channel, (error.errno or 1,))
    finally:
        os._exit(0)


def _packets(network: Network) -> int:
    """Return how many packets the loopback device has sent, or -1 where that is not told."""
    network.route.send(_REQUEST)
    answer = network.route.recv(65536)
    at = _HEADERS
    while at + 4 <= len(answer):
        length, kind = struct.unpack_from("HH", answer, at)
        if kind == _IFLA_STATS:
            # struct rtnl_link_stats: packets received, packets sent.
            return int(struct.unpack_from("II", answer, at + 4)[1])
        at += max(4, (length + 3) & ~3)
    return -1


def raise_loopback() -> None:
    """Bring the loopback device up, and let everybody open low ports and ping, as in Docker since 20.10."""
    any_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(any_socket.fileno(), _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    any_socket.close()
    _write("/proc/sys/net/ipv4/ip_unprivileged_port_start", b"0")
    try:
        _write("/proc/sys/net/ipv4/ping_group_range", b"0 2147483647")
    except OSError:
        # The range must be mapped: where it is not, ping(8) is for root, as on most machines.
        return


def _write(path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)
