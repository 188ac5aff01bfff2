"""Ports of a sandbox on the machine's loopback device."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import SandboxSpec, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime import Engine, Sandbox
    from pytest_sandbox_runtime.process import Process

    Start = Callable[[Sandbox, str], Process]

pytestmark = pytest.mark.needs("overlay-on-host", "python3")

HASH = """
import hashlib, socket
server = socket.create_server(("127.0.0.1", 7000))
while True:
    connection, _ = server.accept()
    digest = hashlib.sha256()
    while data := connection.recv(1 << 20):
        digest.update(data)
    connection.sendall(digest.hexdigest().encode())
    connection.close()
"""
SEND = """
import socket
server = socket.create_server(("127.0.0.1", 7000))
while True:
    connection, _ = server.accept()
    connection.sendall(bytes(range(256)) * 40000)
    connection.shutdown(socket.SHUT_WR)
    print("heard", len(connection.recv(100, socket.MSG_WAITALL)), flush=True)
"""
RESET = """
import socket, struct
server = socket.create_server(("127.0.0.1", 7000))
while True:
    connection, _ = server.accept()
    try:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    except ConnectionResetError:
        print("was reset", flush=True)
"""
UDP = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 7000))
while True:
    data, peer = server.recvfrom(65536)
    server.sendto(data.upper() + b" " + str(peer[1]).encode(), peer)
"""
UNIX = """
import socket
server = socket.socket(socket.AF_UNIX)
server.bind("/tmp/service.sock")
server.listen()
while True:
    connection, _ = server.accept()
    connection.sendall(connection.recv(100).upper())
    connection.close()
"""
IPV6 = """
import socket
server = socket.create_server(("::1", 7000), family=socket.AF_INET6)
while True:
    connection, _ = server.accept()
    connection.sendall(b"six")
    connection.close()
"""


@pytest.fixture
def box(create: Callable[..., Sandbox]) -> Sandbox:
    return create()


def test_bytes_go_in_and_the_answer_comes_back_after_a_half_close(box: Sandbox, start: Start) -> None:
    start(box, HASH)
    data = bytes(range(256)) * 100_000
    with socket.create_connection(box.address(7000)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(64, socket.MSG_WAITALL) == hashlib.sha256(data).hexdigest().encode()


def test_many_connections_at_once_keep_apart(box: Sandbox, start: Start) -> None:
    start(box, HASH)
    connections = [socket.create_connection(box.address(7000)) for _ in range(50)]
    for number, connection in enumerate(connections):
        connection.sendall(b"%d" % number)
        connection.shutdown(socket.SHUT_WR)
    for number, connection in enumerate(connections):
        with connection:
            expected = hashlib.sha256(b"%d" % number).hexdigest().encode()
            assert connection.recv(64, socket.MSG_WAITALL) == expected


def test_the_other_side_may_close_first(box: Sandbox, start: Start) -> None:
    server = start(box, SEND)
    with socket.create_connection(box.address(7000)) as connection, connection.makefile("rb") as stream:
        assert stream.read() == bytes(range(256)) * 40000
        connection.sendall(b"thanks")
        connection.shutdown(socket.SHUT_WR)
        assert server.stdout is not None
        assert server.stdout.readline() == b"heard 6\n"


def test_a_reset_inside_is_one_outside(box: Sandbox, start: Start) -> None:
    start(box, RESET)
    with socket.create_connection(box.address(7000)) as connection:
        connection.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_reset_outside_is_one_inside(box: Sandbox, start: Start) -> None:
    server = start(box, RESET)
    connection = socket.create_connection(box.address(7000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert server.stdout is not None
    assert server.stdout.readline() == b"was reset\n"


def test_datagrams_of_each_peer_come_from_a_port_of_its_own(box: Sandbox, start: Start) -> None:
    start(box, UDP)
    where = box.address(7000, protocol="udp")
    ports = set()
    for word in (b"one", b"two"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(5)
            peer.connect(where)
            for _ in range(2):
                peer.send(word)
                said, _, port = peer.recv(100).partition(b" ")
                assert said == word.upper()
                ports.add(port)
    assert len(ports) == 2


def test_a_unix_socket_has_an_address_too(box: Sandbox, start: Start) -> None:
    start(box, UNIX)
    with socket.create_connection(box.address(path="/tmp/service.sock")) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100, socket.MSG_WAITALL) == b"HELLO"


def test_who_listens_on_ipv6_only_is_found(box: Sandbox, start: Start) -> None:
    start(box, IPV6)
    with socket.create_connection(box.address(7000)) as connection:
        assert connection.recv(3, socket.MSG_WAITALL) == b"six"


def test_an_address_is_the_same_each_time_and_a_url_has_it(box: Sandbox, start: Start) -> None:
    start(box, HASH)
    host, port = box.address(7000)
    assert (host, port) == box.address(7000)
    assert box.url(7000, "/path") == f"http://127.0.0.1:{port}/path"


def test_a_port_that_nobody_listens_at_is_said_with_those_that_somebody_does(box: Sandbox, start: Start) -> None:
    start(box, HASH)
    box.address(7000)
    with pytest.raises(
        ConnectionRefusedError,
        match=r"nobody listens at port 99/tcp in sandbox .* within 0\.05 s; who listens there: 127\.0\.0\.1:7000/tcp",
    ):
        box.address(99, timeout=0.05)
    with pytest.raises(ConnectionRefusedError, match=r"there is no Unix socket /tmp/none in sandbox"):
        box.address(path="/tmp/none", timeout=0.05)


@pytest.mark.parametrize("port", [0, 65536, "80", True])
def test_a_port_that_is_none_is_refused(box: Sandbox, start: Start, port: int) -> None:
    with pytest.raises(SpecError, match="is no number from 1 to 65535"):
        box.address(port)


def test_a_service_that_ends_resets_who_comes_later(box: Sandbox, start: Start) -> None:
    server = start(box, HASH)
    where = box.address(7000)
    server.close()
    with socket.create_connection(where) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)


def test_ports_are_published_where_they_are_wanted(engine: Engine, start: Start) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        wanted = probe.getsockname()[1]
    with engine.create(SandboxSpec(ports={7000: wanted})) as box:
        start(box, HASH)
        box.address(7000)
        with socket.create_connection(("127.0.0.1", wanted)) as connection:
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(64, socket.MSG_WAITALL) == hashlib.sha256().hexdigest().encode()
        with pytest.raises(SpecError, match=rf"port {wanted} of 127\.0\.0\.1 is taken on this machine"):
            engine.create(SandboxSpec(ports={7000: wanted}))


def test_nobody_listens_any_more_when_the_sandbox_has_gone(engine: Engine, start: Start) -> None:
    with engine.create(SandboxSpec()) as box:
        start(box, HASH)
        where = box.address(7000)
        connection = socket.create_connection(where)
    # The process that forwards dies with the sandbox, and its connections with it.
    with connection, contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == b""
