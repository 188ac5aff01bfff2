"""From a sandbox to the test, and out: by a name, and to nothing else."""

from __future__ import annotations

import http.server
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Network, SandboxSpec, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_sandbox_runtime import Engine, LiveNetwork, Sandbox

pytestmark = pytest.mark.needs("overlay-on-host", "networks", "python3")

GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"


class Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{self.headers['Host']} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[int]:
    """A server in the test's own process, and its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def get(sandbox: Sandbox, url: str) -> str:
    outcome = sandbox.run(["python3", "-c", GET, url])
    return str(outcome.stdout).strip() or str(outcome.stderr).strip().splitlines()[-1]


def test_a_server_of_the_test_stands_for_any_name(
    network: LiveNetwork, create: Callable[..., Sandbox], api: int
) -> None:
    sandbox = create(network)
    network.expose("api.example.org", api, port=80)
    network.expose("other.example.org", api, port=80)
    network.expose("other.example.org", api, port=8080)
    assert get(sandbox, "http://api.example.org/v1") == "api.example.org /v1"
    assert get(sandbox, "http://other.example.org/") == "other.example.org /"
    assert get(sandbox, "http://other.example.org:8080/") == "other.example.org:8080 /"
    assert "Connection refused" in get(sandbox, "http://api.example.org:8080/")


def test_what_is_exposed_on_one_network_is_not_on_another(
    engine: Engine, network: LiveNetwork, create: Callable[..., Sandbox], api: int
) -> None:
    network.expose("api.example.org", api, port=80)
    with engine.network() as other:
        assert create(other).run("getent hosts api.example.org").returncode != 0


def test_a_server_that_is_gone_is_a_reset(network: LiveNetwork, create: Callable[..., Sandbox]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    network.expose("api.example.org", port, port=80)
    assert "Connection reset by peer" in get(create(network), "http://api.example.org/")


def test_a_port_leads_to_one_place(network: LiveNetwork, api: int) -> None:
    network.expose("api.example.org", api, port=80)
    with pytest.raises(SpecError, match=r"port 80 of API\.example\.org leads somewhere already on network-"):
        network.expose("API.example.org", api, port=80)
    with pytest.raises(SpecError, match=r"port 0 is no number from 1 to 65535"):
        network.expose("api.example.org", 0)


def test_what_is_allowed_is_looked_up_outside(network: LiveNetwork, create: Callable[..., Sandbox], api: int) -> None:
    # As allow= does, with the one name that every machine knows without asking anybody.
    network.open_outlet("api.example.org", 80, ("name", "localhost", api))
    assert get(create(network), "http://api.example.org/v1") == "api.example.org /v1"


def test_nothing_but_what_is_allowed_is_known(engine: Engine) -> None:
    with engine.create(SandboxSpec(network=Network(allow=("api.nowhere.invalid:80",)))) as sandbox:
        assert sandbox.run("getent hosts api.nowhere.invalid").stdout.split()[0] == "10.77.0.254"
        assert "Connection reset by peer" in get(sandbox, "http://api.nowhere.invalid/")
        assert "Connection refused" in get(sandbox, "http://api.nowhere.invalid:81/")
        assert sandbox.run("getent hosts other.nowhere.invalid").returncode != 0
        assert "Network is unreachable" in get(sandbox, "http://192.0.2.1/")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("api.example.org", "which is no name with a port"),
        ("api.example.org:0", "which is no name with a port"),
        ("192.0.2.1:80", "which is an address"),
        ("a b:80", "is not a name that could be allowed"),
    ],
)
def test_a_place_that_is_none_is_refused(place: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Network(allow=(place,))


def test_a_network_of_its_own_ends_with_its_sandbox(engine: Engine) -> None:
    with engine.create(SandboxSpec(network=Network(subnet="10.9.0.0/24"))) as sandbox:
        assert sandbox.ip == "10.9.0.2"
    with engine.network(Network(subnet="10.9.0.0/24")):
        pass


def test_networks_of_single_sandboxes_may_have_the_same_addresses(engine: Engine) -> None:
    spec = SandboxSpec(network=Network())
    with engine.create(spec) as one, engine.create(spec) as other, engine.network() as network:
        assert one.ip == other.ip == "10.77.0.2"
        with engine.create(spec, [network]) as both:
            assert both.addresses[::2] == ("10.77.0.2", "10.77.1.2")


def test_tls_is_spoken_as_the_name_and_trusted(network: LiveNetwork, create: Callable[..., Sandbox], api: int) -> None:
    before = create(network)
    network.expose("api.example.org", api, port=443, tls=True)
    after = create(network)
    for sandbox in (before, after):
        assert get(sandbox, "https://api.example.org/v1") == "api.example.org /v1"
    with_long_answer = create(network).run(["python3", "-c", GET, "https://api.example.org/" + "x" * 50_000])
    assert with_long_answer.stdout.strip() == "api.example.org /" + "x" * 50_000


def test_a_sandbox_elsewhere_does_not_trust_the_authority(
    engine: Engine, network: LiveNetwork, create: Callable[..., Sandbox], api: int
) -> None:
    network.expose("api.example.org", api, port=443, tls=True)
    with engine.network() as other:
        other.expose("api.example.org", api, port=80)
        assert "authority of this run" not in create(other).run("cat /etc/ssl/certs/ca-certificates.crt").stdout


def test_a_certificate_for_another_name_is_refused(
    network: LiveNetwork, create: Callable[..., Sandbox], api: int
) -> None:
    network.expose("api.example.org", api, port=443, tls=True)
    sandbox = create(network)
    address = sandbox.run("getent hosts api.example.org").stdout.split()[0]
    assert "certificate" in get(sandbox, f"https://{address}/")
