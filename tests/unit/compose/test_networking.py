"""Networks of the file, and services in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.compose import ComposeNetwork, NetworkUse, Subnet

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import ComposeService, Project


def test_who_names_no_network_is_in_the_default_one(read: Callable[..., Project]) -> None:
    project = read("services: {web: {image: x}, db: {image: x, networks: []}}")
    assert [service.networks for service in project.services] == [(NetworkUse(network="default"),)] * 2
    assert project.networks == (ComposeNetwork(key="default", name="test_default", origin=""),)


def test_the_default_network_can_be_declared(read: Callable[..., Project]) -> None:
    project = read("services: {web: {image: x}}\nnetworks: {default: {internal: true}}")
    assert [network.internal for network in project.networks] == [True]


@pytest.mark.parametrize("mode", ["none", "host"])
def test_there_are_modes_without_networks(read: Callable[..., Project], mode: str) -> None:
    project = read(f"services: {{web: {{image: x, network_mode: {mode}}}}}")
    assert (project.services[0].network_mode, project.services[0].networks, project.networks) == (mode, (), ())


def test_a_service_is_in_networks_under_names_and_addresses(service: Callable[..., ComposeService]) -> None:
    text = """
networks:
  front: {aliases: [www, web.test, www], ipv4_address: 10.5.0.9, ipv6_address: 'fd00::0:9', priority: 100}
  back:
"""
    rest = "networks: {front: {ipam: {config: [{subnet: 10.5.0.0/24}, {subnet: 'fd00::/64'}]}}, back: }\n"
    assert service(text, rest).networks == (
        NetworkUse(network="front", aliases=("www", "web.test"), ipv4_address="10.5.0.9", ipv6_address="fd00::9"),
        NetworkUse(network="back"),
    )
    assert [use.network for use in service("networks: [back, front]", rest).networks] == ["back", "front"]


def test_networks_that_services_use_are_in_the_project(read: Callable[..., Project]) -> None:
    project = read("""
services: {web: {image: x, networks: [b, a]}}
networks:
  unused: {external: true}
  a:
    name: own
    driver: bridge
    internal: true
    enable_ipv6: true
    attachable: true
    labels: {a: b}
    ipam:
      driver: default
      config:
        - {subnet: 172.28.0.0/16, ip_range: 172.28.5.0/24, gateway: 172.28.5.254, aux_addresses: {host: 172.28.1.5}}
  b: {enable_ipv4: false}
""")
    subnet = Subnet(
        subnet="172.28.0.0/16", ip_range="172.28.5.0/24", gateway="172.28.5.254", reserved=(("host", "172.28.1.5"),)
    )
    assert project.networks == (
        ComposeNetwork(
            key="a", name="own", origin="", internal=True, enable_ipv6=True, subnets=(subnet,), labels=(("a", "b"),)
        ),
        ComposeNetwork(key="b", name="test_b", origin="", enable_ipv4=False),
    )
    assert project.networks[0].origin == "compose.yaml:5"


LEAVE = "\n  hint: leave it out"
BRIDGES = "\n  hint: the bridges are not Docker's; leave it out"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("network_mode: bridge", "network_mode: 'bridge' is not supported\n  hint: there are \"none\" and \"host\"; for a network in common leave it out, or say networks"),
        ("network_mode: service:db", "network_mode: 'service:db' is not supported\n  hint: there are \"none\" and \"host\"; for a network in common leave it out, or say networks"),
        ("network_mode: none\nnetworks: [n]", "network_mode: stands beside networks\n  hint: say one of the two"),
        ("networks: [m]", "networks[0]: there is no network 'm'\n  hint: declare it under networks, beside services"),
        ("networks: {n: {ipv4_address: 10.5.1.9}}", "networks.n.ipv4_address: 10.5.1.9 is in no subnet of the network 'n'\n  hint: declare the subnet: networks, n, ipam, config, subnet"),
        ("networks: {n: {ipv4_address: '::1'}}", "networks.n.ipv4_address: '::1' is no IPv4 address"),
        ("networks: {n: {ipv6_address: x}}", "networks.n.ipv6_address: 'x' is no IPv6 address"),
        ("networks: {n: {mac_address: '02:42:ac:11:00:02'}}", "networks.n.mac_address: is not supported\n  hint: addresses are given out; leave it out"),
        ("networks: {n: {interface_name: eth7}}", "networks.n.interface_name: is not supported" + LEAVE),
        ("networks: {n: {gw_priority: 1}}", "networks.n.gw_priority: is not supported" + LEAVE),
        ("networks: {n: {link_local_ips: [57.1.1.1]}}", "networks.n.link_local_ips: is not supported" + LEAVE),
        ("networks: {n: {driver_opts: {a: b}}}", "networks.n.driver_opts: is not supported" + BRIDGES),
    ],
)  # fmt: skip
def test_where_a_service_cannot_be_is_said(mistake: Callable[..., str], text: str, said: str) -> None:
    assert mistake(text, "networks: {n: {ipam: {config: [{subnet: 10.5.0.0/24}]}}}\n") == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{external: true}", "networks.n.external: is not supported: nothing is there before the run\n  hint: leave external out: the network is made for the run"),
        ("{driver: overlay}", "networks.n.driver: 'overlay' is not known\n  hint: there is bridge, default"),
        ("{driver_opts: {a: b}}", "networks.n.driver_opts: is not supported" + BRIDGES),
        ("{ipam: {driver: dhcp}}", "networks.n.ipam.driver: 'dhcp' is not known\n  hint: there is default"),
        ("{ipam: {options: {a: b}}}", "networks.n.ipam.options: is not supported" + LEAVE),
        ("{ipam: {config: [{subnet: 10.0.0.1/24}]}}", 'networks.n.ipam.config[0].subnet: 10.0.0.1/24 has host bits set\n  hint: write for example "10.5.0.0/24"'),
        ("{ipam: {config: [{subnet: x}]}}", "networks.n.ipam.config[0].subnet: 'x' does not appear to be an IPv4 or IPv6 network\n  hint: write for example \"10.5.0.0/24\""),
        ("{ipam: {config: [{gateway: 10.0.0.1}]}}", "networks.n.ipam.config[0].gateway: stands without subnet\n  hint: say subnet, too"),
        ("{ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.1.0.1}]}}", "networks.n.ipam.config[0].gateway: 10.1.0.1 is not in 10.0.0.0/24"),
        ("{ipam: {config: [{subnet: 10.0.0.0/24, ip_range: 10.0.0.0/16}]}}", "networks.n.ipam.config[0].ip_range: 10.0.0.0/16 is not in 10.0.0.0/24"),
        ("{ipam: {config: [{subnet: 10.0.0.0/24, aux_addresses: {a: x}}]}}", "networks.n.ipam.config[0].aux_addresses.a: 'x' is no IP address"),
        ("{internal: perhaps}", "networks.n.internal: 'perhaps' is neither true nor false"),
    ],
)  # fmt: skip
def test_what_no_network_can_be_is_said(mistakes: Callable[..., str], text: str, said: str) -> None:
    assert (
        mistakes(f"services: {{web: {{image: x, networks: [n]}}}}\nnetworks: {{n: {text}}}").partition(": ")[2] == said
    )
