"""Sandboxes that see each other, and nothing else."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

import pyroute2
import pytest

from pytest_sandbox_runtime import (
    Engine,
    EngineSettings,
    LiveNetwork,
    Network,
    SandboxClosedError,
    SandboxSpec,
    SpecError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime import Sandbox
    from pytest_sandbox_runtime.process import Process

    Serve = Callable[[Sandbox], None]

pytestmark = pytest.mark.needs("overlay-on-host", "networks", "python3")

SERVE = """
import socket
server = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
print("up", flush=True)
while True:
    connection, peer = server.accept()
    connection.sendall(peer[0].encode())
    connection.close()
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), 5) as connection:
    print(connection.recv(100).decode())
"""


@pytest.fixture
def serve(start: Callable[[Sandbox, str], Process]) -> Callable[[Sandbox], None]:
    def serve_one(sandbox: Sandbox) -> None:
        server = start(sandbox, SERVE)
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"

    return serve_one


def ask(sandbox: Sandbox, host: str) -> str:
    return str(sandbox.run(["python3", "-c", ASK, host], check=True).stdout).strip()


def test_sandboxes_reach_each_other_by_name_over_ipv4_and_ipv6(
    network: LiveNetwork, create: Callable[..., Sandbox], serve: Serve
) -> None:
    client, server = create(network), create(network.join("db"))
    serve(server)
    assert ask(client, "10.77.0.3") == "::ffff:10.77.0.2"
    assert ask(client, "fd78:a4d::3") == "fd78:a4d::2"
    assert ask(client, "db") in ("::ffff:10.77.0.2", "fd78:a4d::2")


def test_addresses_are_the_same_each_time(engine: Engine) -> None:
    def addresses() -> list[tuple[str, ...]]:
        with (
            engine.network() as network,
            engine.create(SandboxSpec(), [network]) as one,
            engine.create(SandboxSpec(), [network]) as other,
        ):
            return [one.addresses, other.addresses]

    assert addresses() == [("10.77.0.2", "fd78:a4d::2"), ("10.77.0.3", "fd78:a4d::3")]
    assert addresses() == addresses()


def test_the_kernel_has_what_was_asked_for(engine: Engine, create: Callable[..., Sandbox]) -> None:
    with engine.network(Network(subnet="10.5.0.0/16", mtu=1400)) as network:
        sandbox = create(network)
        link = sandbox.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu /sys/class/net/eth0/operstate")
        assert link.stdout == "02:42:0a:05:00:02\n1400\nup\n"
        assert sandbox.ip == "10.5.0.2"


@pytest.mark.needs("root")
def test_pyroute2_reads_the_devices_as_they_were_meant(create: Callable[..., Sandbox], network: LiveNetwork) -> None:
    sandbox = create(network)
    with pyroute2.NetNS(f"/proc/{sandbox.pid}/ns/net") as inside:
        (link,) = inside.get_links(ifname="eth0")
        addresses = {message.get("address") for message in inside.get_addr(index=link["index"])}
    assert link.get("address") == "02:42:0a:4d:00:02"
    assert link.get("linkinfo").get("kind") == "veth"
    assert set(sandbox.addresses) <= addresses


def test_networks_that_overlap_do_not_disturb_each_other(store: str, serve: Serve) -> None:
    settings = EngineSettings(store=store)
    with (
        Engine.open(settings) as first,
        Engine.join(first.listen(), settings) as second,
        first.network() as one,
        second.network() as other,
        first.create(SandboxSpec(), [one]) as client,
        first.create(SandboxSpec(), [one.join("db")]) as server,
        second.create(SandboxSpec(), [other]) as stranger,
    ):
        assert one.subnet == other.subnet
        serve(server)
        assert ask(client, "db").endswith(("10.77.0.2", "::2"))
        assert stranger.run(["python3", "-c", ASK, "10.77.0.3"]).returncode != 0
        assert stranger.run("getent hosts db").returncode != 0


def test_a_sandbox_on_two_networks_sees_both_and_joins_neither_to_the_other(
    engine: Engine, create: Callable[..., Sandbox], serve: Serve
) -> None:
    with engine.network(Network(name="front")) as front, engine.network(Network(name="back")) as back:
        web = create(front.join("web"), back.join("web"))
        user, database = create(front.join("user")), create(back.join("db"))
        serve(database)
        serve(web)
        assert ask(web, "db")
        assert ask(user, "web")
        assert user.run("getent hosts db").returncode != 0
        assert len(web.addresses) == 4


def test_nothing_else_can_be_reached_and_that_is_known_at_once(
    network: LiveNetwork, create: Callable[..., Sandbox]
) -> None:
    sandbox = create(network)
    refused = sandbox.run(["python3", "-c", ASK, "192.0.2.1"], timeout=20)
    assert "Network is unreachable" in refused.stderr
    assert sandbox.run(["python3", "-c", ASK, "nowhere.example"], timeout=20).returncode == 1


def test_who_leaves_is_forgotten_and_the_address_is_free_again(
    network: LiveNetwork, engine: Engine, create: Callable[..., Sandbox], serve: Serve
) -> None:
    client = create(network)
    for _ in range(3):
        with engine.create(SandboxSpec(), [network.join("db")]) as server:
            assert server.ip == "10.77.0.3"
            serve(server)
            assert ask(client, "10.77.0.3")


def test_a_fixed_address_is_had(engine: Engine, network: LiveNetwork, create: Callable[..., Sandbox]) -> None:
    assert create(network.join(ip="10.77.0.99")).ip == "10.77.0.99"
    with pytest.raises(SpecError, match=r"10\.77\.0\.99 is taken on .*10\.77\.0\.0/24"):
        engine.create(SandboxSpec(), [network.join(ip="10.77.0.99")])
    with pytest.raises(SpecError, match=r"ip='10\.77\.0\.1' is no sandbox's"):
        network.join(ip="10.77.0.1")
    with pytest.raises(SpecError, match=r"ip='10\.78\.0\.5' is not in 10\.77\.0\.0/24"):
        network.join(ip="10.78.0.5")


def test_a_subnet_can_be_used_up(engine: Engine, create: Callable[..., Sandbox]) -> None:
    with engine.network(Network(name="tiny", subnet="10.6.0.0/29")) as tiny:
        assert [create(tiny).ip for _ in range(5)][-1] == "10.6.0.6"
        with pytest.raises(SpecError, match=r"no address is free on tiny \(10\.6\.0\.0/29\)\n  hint: close sandboxes"):
            engine.create(SandboxSpec(), [tiny])


def test_a_subnet_that_another_network_has_is_refused(engine: Engine) -> None:
    with (
        engine.network(Network(subnet="10.7.0.0/16")),
        pytest.raises(SpecError, match=r"subnet='10\.7\.8\.0/24' overlaps 10\.7\.0\.0/16"),
    ):
        engine.network(Network(subnet="10.7.8.0/24"))


def test_a_network_that_was_closed_cannot_be_joined(engine: Engine) -> None:
    network = engine.network()
    network.close()
    with pytest.raises(SandboxClosedError, match="was closed"):
        engine.create(SandboxSpec(), [network])


def test_a_network_that_closes_leaves_its_sandboxes_running(engine: Engine, create: Callable[..., Sandbox]) -> None:
    with engine.network() as network:
        sandbox = create(network.join("db"))
    create()  # answered behind the end of the network
    assert sandbox.run("cat /etc/hosts").stdout == ("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")


def test_without_ipv6_there_is_none(engine: Engine, create: Callable[..., Sandbox]) -> None:
    with engine.network(Network(ipv6=False)) as network:
        assert create(network).addresses == ("10.77.0.2",)


def test_hosts_network_cannot_join_others(engine: Engine, network: LiveNetwork) -> None:
    with pytest.raises(SpecError, match="network='host' has no network of its own"):
        engine.create(SandboxSpec(network="host"), [network])


@pytest.mark.parametrize("victim", ["supervisor", "init"])
def test_a_kill_leaves_no_device_anywhere(store: str, victim: str) -> None:
    before = os.listdir("/sys/class/net")
    engine = Engine.open(EngineSettings(store=store))
    network = engine.network()
    sandbox = engine.create(SandboxSpec(), [network])
    init = os.pidfd_open(sandbox.pid)
    with open(f"/proc/{sandbox.pid}/status", encoding="ascii") as status:
        parent = next(int(line.split()[1]) for line in status if line.startswith("PPid"))
    os.kill(parent if victim == "supervisor" else sandbox.pid, signal.SIGKILL)
    assert select.select([init], [], [], 5)[0]
    assert os.listdir("/sys/class/net") == before
    for handle in (sandbox, network, engine):
        handle.close()
    os.close(init)


def test_a_sandbox_that_runs_joins_another_network(
    engine: Engine, network: LiveNetwork, create: Callable[..., Sandbox], serve: Serve
) -> None:
    server, client = create(network), create(network)
    serve(server)
    with engine.network() as other:
        assert other.connect(server, "db") == ("10.77.1.2", "fd78:a4d:100::2")
        assert server.addresses[2:] == ("10.77.1.2", "fd78:a4d:100::2")
        neighbour = create(other)
        assert ask(neighbour, "db")
        assert client.run("getent hosts db").returncode != 0


def test_a_sandbox_of_no_network_cannot_join_one_later(network: LiveNetwork, create: Callable[..., Sandbox]) -> None:
    with pytest.raises(SpecError, match="was started on no network, and can join none later"):
        network.connect(create())
