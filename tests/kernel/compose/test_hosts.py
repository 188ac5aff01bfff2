"""host-gateway: the test's machine, as far as the test exposes it."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import SpecError, ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_sandbox_runtime.compose.running import LiveProject

    Up = Callable[..., LiveProject]

pytestmark = pytest.mark.needs("overlayfs", "networks", "static-busybox")

NAMED = """
    services:
      web: {image: base, command: sleep 1000, extra_hosts: ["host.docker.internal:host-gateway"], networks: [back, front]}
      other: {image: base, command: sleep 1000, networks: [front]}
    networks: {front: {}, back: {}}
    """


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"of the test\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """Where a server in the test's own process listens."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_what_is_exposed_is_reached_and_nothing_else(up: Up, port: int) -> None:
    project = up(NAMED)
    web = project["web"]
    assert f"{project.networks['back'].gateway} host.docker.internal\n" in web.sandbox.read_text("/etc/hosts")
    get = ["busybox", "wget", "-qO-", f"http://host.docker.internal:{port}/"]
    assert "Connection refused" in web.run(get).stderr
    project.expose(port)
    project.expose(port, port=80)
    assert web.run(get, check=True).stdout == "of the test\n"
    assert web.run(["busybox", "wget", "-qO-", "http://host.docker.internal/"], check=True).stdout == "of the test\n"
    assert "Connection refused" in web.run(["busybox", "wget", "-qO-", "http://host.docker.internal:1/"]).stderr
    assert "host.docker.internal" not in project["other"].sandbox.read_text("/etc/hosts")
    with pytest.raises(SpecError, match="port 80 of host-gateway leads somewhere already"):
        project.expose(port, port=80)


def test_what_is_exposed_from_the_start_is_there_when_programs_start(up: Up, port: int) -> None:
    project = up(
        f"""
        services:
          web:
            image: base
            command: sh -c "busybox wget -qO- http://machine:{port}/; exec sleep 1000"
            extra_hosts: {{machine: host-gateway}}
        """,
        expose=(port,),
    )
    project["web"].wait(ready.log("of the test"))


def test_on_the_machines_own_network_it_is_the_machine(up: Up, port: int) -> None:
    project = up("""
        services:
          web: {image: base, command: sleep 1000, network_mode: host, extra_hosts: ["machine=host-gateway"]}
        """)
    said = project["web"].run(["busybox", "wget", "-qO-", f"http://machine:{port}/"], check=True).stdout
    assert said == "of the test\n"
