"""Real servers, each in a network and a file system of its own."""

import shutil
import socket

import pytest

redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


def start_redis(sandbox):
    server = sandbox.popen(["redis-server", "--dir", "/tmp", "--daemonize", "no"])
    for line in server.stdout:
        if b"eady to accept connections" in line:
            return server
    raise AssertionError(f"redis ended: {server.wait()}")


def ask(sandbox, command: str) -> str:
    with sandbox.connect(6379) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(4096).decode().strip()


@redis
@pytest.mark.sandbox
def test_redis_keeps_what_it_is_told(sandbox) -> None:
    with start_redis(sandbox):
        assert ask(sandbox, "SET colour blue") == "+OK"
        assert ask(sandbox, "GET colour").endswith("blue")


@redis
@pytest.mark.sandbox
def test_the_next_test_has_a_redis_of_its_own(sandbox) -> None:
    with start_redis(sandbox) as server:
        assert ask(sandbox, "GET colour") == "$-1"
        server.kill()
        assert server.wait() == -9
        with pytest.raises(ConnectionRefusedError):
            sandbox.connect(6379)


@pytest.mark.sandbox
@pytest.mark.parametrize("tenant", ["one", "two"])
def test_everybody_may_have_port_80(tenant: str) -> None:
    with socket.create_server(("127.0.0.1", 80)) as server, socket.create_connection(("127.0.0.1", 80)) as client:
        connection, _ = server.accept()
        connection.sendall(tenant.encode())
        assert client.recv(16).decode() == tenant
        connection.close()
