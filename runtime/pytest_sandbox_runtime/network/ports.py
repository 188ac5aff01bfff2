"""PYTEST_DONT_REWRITE. Ports of a sandbox on the machine's loopback device: a fork of the supervisor for each.

It listens outside before it goes to the sandbox's network, where its connections begin. Bytes go from socket to socket
by splice(2), through a pipe and past this process's memory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct

from pytest_sandbox_runtime.kernel.light import socket
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, setns
from pytest_sandbox_runtime.kernel.processes import become_helper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 20
_BACKLOG = 256
_F_SETPIPE_SZ = 1031
# Conversations of UDP that are remembered; the oldest is forgotten first.
_MOST_PEERS = 256
_SPLICE = 0x02 | 0x01  # SPLICE_F_NONBLOCK, SPLICE_F_MOVE
_RESET = struct.pack("ii", 1, 0)
_LATER = (errno.EAGAIN, errno.EINPROGRESS)

# Where a port leads: ("tcp", addresses, port), ("udp", addresses, port), ("name", name, port), ("unix", path), or
# ("tls", addresses, port, the file with key and certificates).


def listen(kind: str, host: str, port: int) -> socket.socket:
    """Return a socket that listens on the machine, at a free port where ``port`` is 0; raises OSError."""
    is_datagram = kind == "udp"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, (socket.SOCK_DGRAM if is_datagram else socket.SOCK_STREAM) | socket.SOCK_CLOEXEC)
    try:
        if not is_datagram:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        if not is_datagram:
            listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def forward(listener: socket.socket, target: tuple[object, ...], init: int | None) -> int:
    """Forward what comes to ``listener`` to ``target`` in the sandbox of ``init``, or here; returns the fork's pid."""
    pid = os.fork()
    if pid == 0:
        try:
            _become(listener, target, init)
        finally:
            os._exit(1)
    return pid


def _become(listener: socket.socket, target: tuple[object, ...], init: int | None) -> None:
    become_helper(listener.fileno())
    kind = target[0]
    if init is not None:
        process = os.pidfd_open(init)
        # For its files, too, no link in there leads out of it.
        setns(process, CloneFlag.NEWNET | (CloneFlag.NEWNS if kind == "unix" else 0))
        os.close(process)
    listener.setblocking(False)
    if kind == "tls":
        from pytest_sandbox_runtime.network.tls import serve

        serve(listener.detach(), *target[1:])  # type: ignore[arg-type]
    elif kind == "udp":
        Datagrams(listener, *target[1:]).serve()  # type: ignore[arg-type]
    else:
        Streams(listener, target).serve()


def _places(target: tuple[object, ...]) -> list[tuple[object, ...]]:
    """Return the families and addresses that ``target`` means, one after the other to be tried; raises OSError."""
    if target[0] == "unix":
        return [(socket.AF_UNIX, target[1])]
    _, addresses, port = target
    if target[0] == "name":
        found = socket.getaddrinfo(addresses, port, 0, socket.SOCK_STREAM)  # type: ignore[arg-type]
        return [(family, address) for family, _, _, _, address in found]
    return [(_family(address), (address, port)) for address in addresses]  # type: ignore[attr-defined]


class _Side:
    """One end of a connection, and the pipe that holds what it has sent until the other end takes it."""

    def __init__(self, one: socket.socket) -> None:
        self.socket = one
        self.fd = one.fileno()
        self.out, self.into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:  # noqa: SIM105  contextlib is not needed here otherwise
            fcntl.fcntl(self.into, _F_SETPIPE_SZ, _CHUNK)
        except OSError:
            pass  # an ordinary user's pipes are small once they have many: pipe(7)
        self.held = 0
        self.has_ended = False
        self.is_told = False

    def close(self) -> None:
        self.socket.close()
        os.close(self.out)
        os.close(self.into)


class _Connection:
    def __init__(self, near: socket.socket, far: socket.socket, rest: list[tuple[object, ...]]) -> None:
        self.near = _Side(near)
        self.far = _Side(far)
        # Where to connect to if the far end says no.
        self.rest = rest
        self.is_connected = False


class Streams:
    """Connections, of TCP outside, and of TCP or to a Unix socket inside."""

    def __init__(self, listener: socket.socket, target: tuple[object, ...]) -> None:
        self._listener = listener
        self._target = target
        self._poll = select.epoll()
        self._poll.register(listener.fileno(), select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}
        self._events: dict[int, int] = {}

    def serve(self) -> None:
        """Serve for ever."""
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                elif fd in self._connections:
                    self._go_on(self._connections[fd], fd)

    def _accept(self) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        near = socket.socket(fileno=fd)
        near.setblocking(False)
        try:
            places = _places(self._target)
        except OSError:
            # Nobody knows the name now.
            places = []
        self._connect(near, places)

    def _connect(self, near: socket.socket, places: list[tuple[object, ...]]) -> None:
        """Begin to connect to the first of ``places`` that does not say no at once."""
        while places:
            family, address = places.pop(0)
            far = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)  # type: ignore[arg-type]
            far.setblocking(False)
            if far.connect_ex(address) in (0, *_LATER):  # type: ignore[arg-type]
                self._begin(_Connection(near, far, places))
                return
            far.close()
        _reset(near)

    def _begin(self, connection: _Connection) -> None:
        for side in (connection.near, connection.far):
            if side.socket.family != socket.AF_UNIX:
                side.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[side.fd] = connection
            self._events[side.fd] = 0
            self._poll.register(side.fd, 0)
        self._want(connection.far.fd, select.EPOLLOUT)

    def _want(self, fd: int, events: int) -> None:
        if self._events[fd] != events:
            self._events[fd] = events
            self._poll.modify(fd, events)

    def _go_on(self, connection: _Connection, fd: int) -> None:
        near, far = connection.near, connection.far
        if not connection.is_connected:
            if fd == far.fd:
                self._finish_connecting(connection)
            else:
                # It has gone before there was anybody to talk to.
                self._end(connection, reset=True)
            return
        try:
            self._move(near, far)
            self._move(far, near)
        except OSError:
            # A reset on one side is one on the other.
            self._end(connection, reset=True)
            return
        if near.is_told and far.is_told:
            self._end(connection, reset=False)
            return
        for side, other in ((near, far), (far, near)):
            reads = select.EPOLLIN if not side.has_ended and side.held < _CHUNK else 0
            self._want(side.fd, reads | (select.EPOLLOUT if other.held else 0))

    def _finish_connecting(self, connection: _Connection) -> None:
        if connection.far.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            near, rest = connection.near.socket, connection.rest
            self._forget(connection)
            for fd in (connection.near.out, connection.near.into):
                os.close(fd)
            connection.far.close()
            self._connect(near, rest)
            return
        connection.is_connected = True
        for side in (connection.near, connection.far):
            self._want(side.fd, select.EPOLLIN)

    def _move(self, source: _Side, target: _Side) -> None:
        """Move what can be moved; raises OSError where one of the two was reset."""
        while not source.has_ended:
            moved = _splice(source.fd, source.into)
            if moved == 0:
                source.has_ended = True
            elif moved > 0:
                source.held += moved
            if source.held:
                sent = _splice(source.out, target.fd, source.held)
                source.held -= max(sent, 0)
            if moved < 0 or source.held:
                break
        if source.held:
            source.held -= max(_splice(source.out, target.fd, source.held), 0)
        if source.has_ended and not source.held and not source.is_told:
            source.is_told = True
            target.socket.shutdown(socket.SHUT_WR)

    def _forget(self, connection: _Connection) -> None:
        for side in (connection.near, connection.far):
            self._poll.unregister(side.fd)
            del self._connections[side.fd], self._events[side.fd]

    def _end(self, connection: _Connection, *, reset: bool) -> None:
        self._forget(connection)
        for side in (connection.near, connection.far):
            if reset and side.socket.family != socket.AF_UNIX:
                side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            side.close()


def _splice(source: int, target: int, count: int = _CHUNK) -> int:
    """Return how many bytes went from one to the other, 0 at end of file, -1 where none can now."""
    try:
        return os.splice(source, target, count, flags=_SPLICE)
    except BlockingIOError:
        return -1


def _reset(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    one.close()


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Datagrams:
    """Conversations of UDP: what each peer outside sends comes from a socket of its own inside."""

    def __init__(self, listener: socket.socket, addresses: tuple[str, ...], port: int) -> None:
        self._listener = listener
        self._target = (addresses[0], port)
        self._poll = select.poll()
        self._inside: dict[tuple[str, int], socket.socket] = {}
        self._readers: dict[int, Callable[[], None]] = {}
        self._watch(listener, self._hear)

    def serve(self) -> None:
        """Serve for ever."""
        while True:
            for fd, _ in self._poll.poll():
                try:
                    self._readers[fd]()
                except (OSError, KeyError):
                    # Nobody takes it: as it is with datagrams, it is lost.
                    continue

    def _watch(self, one: socket.socket, read: Callable[[], None]) -> None:
        self._readers[one.fileno()] = read
        self._poll.register(one.fileno(), select.POLLIN)

    def _hear(self) -> None:
        data, peer = self._listener.recvfrom(65536)
        self._socket_for(peer).send(data)

    def _socket_for(self, peer: tuple[str, int]) -> socket.socket:
        if peer not in self._inside:
            if len(self._inside) >= _MOST_PEERS:
                self._forget(next(iter(self._inside)))
            inside = socket.socket(_family(self._target[0]), socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            inside.connect(self._target)
            self._inside[peer] = inside
            self._watch(inside, lambda: self._answer(peer, inside))
        return self._inside[peer]

    def _answer(self, peer: tuple[str, int], inside: socket.socket) -> None:
        self._listener.sendto(inside.recv(65536), peer)

    def _forget(self, peer: tuple[str, int]) -> None:
        inside = self._inside.pop(peer)
        self._poll.unregister(inside.fileno())
        del self._readers[inside.fileno()]
        inside.close()
