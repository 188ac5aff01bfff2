"""Networks and services: what two machines cost, and how fast their ports are."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.clock import check, times_of
from pytest_sandbox_runtime import Image, SandboxSpec, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_sandbox_runtime import Engine, LiveNetwork

# Sends what is asked for in megabytes to whoever connects.
SEND = """
import socket
server = socket.create_server(("127.0.0.1", {port}))
data = bytes(1 << 20)
while True:
    connection, _ = server.accept()
    with connection:
        for _ in range(int(connection.recv(100) or 0)):
            connection.sendall(data)
"""
_PORT = 18321
PING = ("ping", "-c1", "-W5", "peer")


def times_of_pair(engine: Engine, spec: SandboxSpec, count: int) -> list[float]:
    """Return the seconds of two sandboxes on a network of their own, of which one pings the other by name."""

    def pair() -> None:
        with (
            engine.network() as network,
            engine.create(spec, [network]) as one,
            engine.create(spec, [network.join("peer")]),
        ):
            one.run(PING, check=True)

    return times_of(pair, count, warm=5)


def seconds_of_crowd(engine: Engine, spec: SandboxSpec, count: int) -> float:
    """Return the seconds of each of ``count`` sandboxes on one network; any name that is not known is an error."""
    # The first one unpacks the image.
    engine.create(spec).close()
    with engine.network() as network, contextlib.ExitStack() as undo:
        began = time.perf_counter()
        boxes = [undo.enter_context(engine.create(spec, [network.join(f"n{number}")])) for number in range(count)]
        seconds = (time.perf_counter() - began) / count
        for box in (boxes[0], boxes[-1]):
            for number in (0, count // 2, count - 1):
                box.run(["getent", "hosts", f"n{number}"], check=True)
    return seconds


def times_of_redis(engine: Engine, count: int) -> list[float]:
    """Return the seconds of a redis that is ready, answers PING through its address, and goes."""
    command = ("redis-server", "--save", "", "--protected-mode", "no")
    service = Service(Image.host(), command=command, ports=(6379,))

    def serve(network: LiveNetwork) -> None:
        began = time.perf_counter()
        with engine.start(service, network) as live, socket.create_connection(live.address()) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(10) != b"+PONG\r\n":
                raise SystemExit("redis did not answer")
            times.append(time.perf_counter() - began)

    times: list[float] = []
    with engine.network() as network:
        for _ in range(count + 2):
            serve(network)
    return times[2:]


def speeds_of_forwarding(engine: Engine, megabytes: int, count: int) -> tuple[list[float], list[float]]:
    """Return the megabytes a second of one connection through address(), and over plain loopback, turn by turn."""
    # The system's, which a copy of the host has, too.
    argv = ("/usr/bin/python3", "-c", SEND.format(port=_PORT))
    with engine.create(SandboxSpec()) as box, box.popen(argv), _here(argv):
        through = box.address(_PORT)
        ours, plain = [], []
        for _ in range(count):
            ours.append(_speed(through, megabytes))
            plain.append(_speed(("127.0.0.1", _PORT), megabytes))
    return ours, plain


@contextlib.contextmanager
def _here(argv: tuple[str, ...]) -> Iterator[None]:
    with subprocess.Popen(argv) as process:
        try:
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", _PORT)).close()
                    break
            yield
        finally:
            process.kill()


def _speed(where: tuple[str, int], megabytes: int) -> float:
    buffer = bytearray(1 << 20)
    with socket.create_connection(where) as connection:
        began = time.perf_counter()
        connection.sendall(b"%d" % megabytes)
        left = megabytes << 20
        while left:
            left -= connection.recv_into(buffer)
        return megabytes / (time.perf_counter() - began)


def time_of_docker_pair(where: Path, tar: Path, count: int) -> float | None:
    """Return the seconds of the pair with Docker, in a network namespace of its own; None where that does not work."""
    client = ("docker", "--host", f"unix://{where}/bridged.sock")
    try:
        with bridged_daemon(where, client):
            check((*client, "import", str(tar), "bench"))
            return median(times_of(lambda: _pair(client), count, warm=1))
    except (OSError, subprocess.CalledProcessError):
        return None


def _pair(client: tuple[str, ...]) -> None:
    check((*client, "network", "create", "pair"))
    check((*client, "run", "--detach", "--name", "peer", "--network", "pair", "bench", "sleep", "1000"))
    try:
        check((*client, "run", "--rm", "--network", "pair", "bench", *PING))
    finally:
        check((*client, "rm", "--force", "peer"))
        check((*client, "network", "rm", "pair"))


@contextlib.contextmanager
def bridged_daemon(where: Path, client: tuple[str, ...]) -> Iterator[int]:
    """Start a daemon with bridges, which are in a network namespace that ends with it; its pid is what is had."""
    daemon = f"dockerd --host unix://{where}/bridged.sock --data-root {where}/bridged --exec-root {where}/bridged-run"
    daemon += f" --pidfile {where}/bridged.pid"
    script = f"ip link set lo up; exec {daemon}"
    notice = where / "bridged-notice"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as said, (where / "bridged.log").open("wb") as log:
        said.bind(str(notice))
        said.settimeout(30)
        environment = {**os.environ, "NOTIFY_SOCKET": str(notice), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        argv = ("unshare", "--mount", "--net", "sh", "-c", script)
        with subprocess.Popen(argv, env=environment, stdout=log, stderr=log) as process:
            try:
                while b"READY=1" not in said.recv(4096):
                    pass
                check((*client, "version"))
                yield process.pid
            finally:
                process.send_signal(signal.SIGTERM)
