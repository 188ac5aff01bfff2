"""PYTEST_DONT_REWRITE. Network namespaces, as new: network_namespaces(7).

The kernel makes and unmakes one for longer than all the rest of a sandbox. Who lacks CAP_NET_ADMIN in one can leave no
trace in it but by packets, and before it joins a network there is one device to send them to: a namespace whose
loopback device has sent none is as new when all processes in it are dead, and is used for another sandbox.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections import namedtuple

from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.light import socket
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, setns, unshare
from pytest_sandbox_runtime.kernel.pseudo_files import write
from pytest_sandbox_runtime.network.netlink import Route, open_route
from pytest_sandbox_runtime.network.watch import RESOLVER, open_resolver
from pytest_sandbox_runtime.supervisor.messages import receive, send, seqpacket_pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SPARE = 4
_MOST_RETIRED = 32
_OWN = "/proc/self/ns/net"
_LOOPBACK = 1
_SIOCSIFFLAGS, _SIOCSIFADDR = 0x8914, 0x8916
_IFF_UP = 1
# The namespace's descriptor, a Route in it, and whatever sockets it was made with.
Namespace = namedtuple("Namespace", "descriptor route sockets")


class Namespaces:
    """Those of sandboxes. ``may_return`` is whether this process can leave its network namespace and come back."""

    def __init__(self, *, may_return: bool) -> None:
        self._spare: list[Namespace] = []
        # Those that nobody uses any more. The kernel ends many at once for little more than one, and while it does,
        # whoever makes a device anywhere has to wait.
        self._retired: list[Namespace] = []
        self._make = _make_here if may_return else _make_in_fork

    def make(self, open_sockets: Callable[[], tuple[int, ...]]) -> Namespace:
        """Return a new one, with the descriptors that ``open_sockets`` returns when called in it; raises OSError."""
        return self._make(open_sockets)

    def take(self) -> Namespace:
        """Return one for a sandbox, with the socket at which that is answered; raises OSError."""
        return self._spare.pop() if self._spare else self._make(open_resolver)

    def retire(self, namespace: Namespace) -> None:
        """Let go of ``namespace``, whose processes are dead, together with others."""
        self._retired.append(namespace)
        if len(self._retired) >= _MOST_RETIRED:
            self.end_retired()

    @property
    def has_retired(self) -> bool:
        """Whether some are still to be let go of."""
        return bool(self._retired)

    def end_retired(self) -> None:
        """Let go of all that are retired."""
        retired, self._retired = self._retired, []
        for namespace in retired:
            close(namespace)

    def give_back(self, namespace: Namespace) -> None:
        """Keep ``namespace``, whose processes are dead, for another if no packet was ever sent in it."""
        if len(self._spare) < _SPARE and namespace.route.packets_sent(_LOOPBACK) == 0:
            self._spare.append(namespace)
        else:
            self.retire(namespace)


def close(namespace: Namespace) -> None:
    """Let go of ``namespace``: without a process in it that is its end, and that of every device in it."""
    os.close(namespace.descriptor)
    namespace.route.close()
    for descriptor in namespace.sockets:
        os.close(descriptor)


def open_in(namespace: Namespace, open_sockets: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
    """Return the descriptors that ``open_sockets`` returns when called in ``namespace``; raises OSError."""

    def enter_and_open() -> tuple[int, ...]:
        setns(namespace.descriptor, CloneFlag.NEWNET)
        return open_sockets()

    return _in_fork(enter_and_open, "a socket on the network")


def _make_here(open_sockets: Callable[[], tuple[int, ...]]) -> Namespace:
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        made = _open_new(open_sockets)
    finally:
        setns(own, CloneFlag.NEWNET)
        os.close(own)
    return Namespace(made[0], Route(made[1]), tuple(made[2:]))


def _make_in_fork(open_sockets: Callable[[], tuple[int, ...]]) -> Namespace:
    fds = _in_fork(lambda: _open_new(open_sockets), "network namespace")
    return Namespace(fds[0], Route(fds[1]), fds[2:])


def _in_fork(make: Callable[[], tuple[int, ...]], subject: str) -> tuple[int, ...]:
    """Return the descriptors that ``make`` returns, called in a fork that may go where this process may not return."""
    ours, theirs = seqpacket_pair()
    pid = os.fork()
    if pid == 0:
        _tell_made(theirs, make)
    theirs.close()
    received = receive(ours)
    ours.close()
    os.waitpid(pid, 0)
    if received is None:
        raise OSError(0, "died while it was made", subject)
    (code,), fds = received
    if code:
        raise OSError(code, os.strerror(int(str(code))), subject)
    return tuple(fds)


def _tell_made(channel: socket.socket, make: Callable[[], tuple[int, ...]]) -> None:
    try:
        send(channel, (0,), make())
    except OSError as error:
        send(channel, (error.errno or 1,))
    finally:
        os._exit(0)


def _open_new(open_sockets: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
    unshare(CloneFlag.NEWNET)
    raise_loopback()
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC), open_route(), *open_sockets()


def uncover_settings() -> None:
    """Let this process write the settings of its network namespaces in /proc/sys, where a sandbox around it does not.

    In one of root's nobody may: raise_loopback does without.
    """
    if os.statvfs("/proc/sys").f_flag & os.ST_RDONLY:
        try:
            mount("proc", "/proc", "proc", MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC)
        except SyscallError as error:
            if error.errno != errno.EPERM:
                raise


def raise_loopback() -> None:
    """Bring the loopback device up, and let everybody open low ports and ping, as in Docker since 20.10."""
    any_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(any_socket.fileno(), _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    _add_addresses(any_socket)
    any_socket.close()
    try:
        write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return  # in a sandbox of root's that nests: there is nobody but root, who may in any case
    # Both ends of the range must be mapped: all groups are, or those that newgidmap(1) gave, or one.
    for groups in ("0 2147483647", "0 65535", "0 0"):
        try:
            write("/proc/sys/net/ipv4/ping_group_range", groups)
        except OSError:
            continue
        return


def _add_addresses(any_socket: socket.socket) -> None:
    """Give the loopback device one more address of IPv4 and of IPv6.

    With none but 127.0.0.1 and ::1 the machine has no address for getaddrinfo(3), which then, with AI_ADDRCONFIG, as
    many libraries ask, knows not even those two.
    """
    # struct ifreq, netdevice(7), and struct in6_ifreq, ipv6(7).
    request = struct.pack("16sH2x4s8x", b"lo:1", socket.AF_INET, socket.inet_aton(RESOLVER))
    fcntl.ioctl(any_socket.fileno(), _SIOCSIFADDR, request)
    try:
        other = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        fcntl.ioctl(
            other.fileno(), _SIOCSIFADDR, struct.pack("16sIi", b"\xfe\x80" + bytes(13) + b"\x01", 128, _LOOPBACK)
        )
        other.close()
    except OSError:
        return  # a kernel without IPv6
