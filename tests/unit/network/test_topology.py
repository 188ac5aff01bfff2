"""What is out of a sandbox's reach, by the networks that it is on."""

from __future__ import annotations

import socket

import pytest

from pytest_sandbox_runtime.network.bridge import Plan
from pytest_sandbox_runtime.network.topology import Topology

NET6 = bytes.fromhex("fd00000000000000" + "00" * 8)


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def plan(net4: str, prefix: int = 24, slirp: str = "") -> tuple[object, ...]:
    return tuple(Plan(packed(net4), prefix, NET6, 64, 1500, slirp))


@pytest.fixture
def topology() -> Topology:
    """Sandbox 1 is alone, 2 and 3 are on a network with an outlet, and 3 is on one that leads outside, too."""
    topology = Topology()
    topology.add(1, plan("10.77.0.0"))
    topology.add(2, plan("10.78.0.0", slirp="/usr/bin/slirp4netns"))
    topology.name(1, "2", ("db",), (packed("10.77.0.2"), packed("fd00::2")))
    topology.name(1, "3", (), (packed("10.77.0.3"), packed("fd00::3")))
    topology.name(2, "3", (), (packed("10.78.0.2"),))
    topology.name(1, "outlet api.example.org", ("api.example.org",), (packed("10.77.0.254"),))
    topology.open(1, "outlet api.example.org", 443)
    return topology


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.0.0.11",
        "0.0.0.0",
        "224.0.0.251",
        "255.255.255.255",
        "169.254.7.7",
        "::1",
        "::",
        "ff02::1",
        "fe80::1",
        "febf::1",
    ],
)
def test_the_machine_itself_and_who_is_next_to_it_are_never_refused(topology: Topology, address: str) -> None:
    assert topology.refused("1", packed(address), 80) is None


@pytest.mark.parametrize(
    "address", ["1.0.0.1", "10.77.0.2", "128.0.0.1", "169.253.0.1", "2001:db8::1", "fec0::1", "0:0:1::1"]
)
def test_one_without_a_network_is_refused_all_else(topology: Topology, address: str) -> None:
    assert topology.refused("1", packed(address), 80) == address


@pytest.mark.parametrize(
    ("address", "port", "refused"),
    [
        ("10.77.0.3", 80, None),
        ("10.77.0.99", 80, None),
        ("fd00::3", 80, None),
        ("10.77.0.1", 53, None),
        ("10.77.0.1", 8000, "host-gateway"),
        ("fd00::1", 8000, "host-gateway"),
        ("10.77.0.254", 443, None),
        ("10.77.0.254", 80, "api.example.org"),
        ("10.77.1.0", 80, "10.77.1.0"),
        ("10.76.255.255", 80, "10.76.255.255"),
        ("fd00:0:0:1::1", 80, "fd00:0:0:1::1"),
        ("93.184.216.34", 443, "93.184.216.34"),
    ],
)
def test_one_on_a_network_reaches_it_and_what_leads_out(
    topology: Topology, address: str, port: int, refused: str | None
) -> None:
    assert topology.refused("2", packed(address), port) == refused


@pytest.mark.parametrize("address", ["93.184.216.34", "2001:db8::1", "10.78.0.9"])
def test_where_one_network_leads_outside_nothing_there_is_refused(topology: Topology, address: str) -> None:
    assert topology.refused("3", packed(address), 443) is None
    # But by what the other network has.
    assert topology.refused("3", packed("10.77.0.254"), 80) == "api.example.org"


def test_who_has_left_has_nothing_any_more(topology: Topology) -> None:
    topology.forget(1, "2")
    assert topology.refused("2", packed("10.77.0.3"), 80) == "10.77.0.3"
    assert topology.networks[1].who_has(packed("10.77.0.2")) is None
    topology.remove(2)
    assert topology.refused("3", packed("93.184.216.34"), 443) == "93.184.216.34"


def test_a_network_of_one_address_family_holds_none_of_the_other() -> None:
    topology = Topology()
    topology.add(1, tuple(Plan(packed("10.0.0.0"), 8, b"", 0, 1500, "")))
    topology.name(1, "1", (), (packed("10.0.0.2"),))
    assert topology.refused("1", packed("10.255.255.254"), 80) is None
    assert topology.refused("1", packed("fd00::2"), 80) == "fd00::2"
