"""``ports`` and ``expose``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.compose import Port

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import ComposeService


def port(target: int, published: int | None = None, **more: Any) -> Port:
    return Port(target=target, published=published, **more)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [port(80)]),
        ("'80'", [port(80)]),
        ("'8080:80'", [port(80, 8080)]),
        ("8080:80", [port(80, 8080)]),
        ("'80/udp'", [port(80, protocol="udp")]),
        ("'8080:80/TCP'", [port(80, 8080)]),
        ("'3000-3002'", [port(3000), port(3001), port(3002)]),
        ("'9090-9091:8080-8081'", [port(8080, 9090), port(8081, 9091)]),
        ("'9090-9091:8080-8081/udp'", [port(8080, 9090, protocol="udp"), port(8081, 9091, protocol="udp")]),
        ("'8000-9000:80'", [port(80, 8000, published_end=9000)]),
        ("'80-80:80'", [port(80, 80)]),
        ("'127.0.0.1:8001:8001'", [port(8001, 8001, host_ip="127.0.0.1")]),
        ("'127.0.0.1::80'", [port(80, host_ip="127.0.0.1")]),
        ("'0.0.0.0:8080:80'", [port(80, 8080)]),
        ("'127.0.0.1:5000-5001:5000-5001'", [port(5000, 5000, host_ip="127.0.0.1"), port(5001, 5001, host_ip="127.0.0.1")]),
        ("'[::1]:6001:6001'", [port(6001, 6001, host_ip="::1")]),
        ("'::1:6000:6000'", [port(6000, 6000, host_ip="::1")]),
        ("{target: 80}", [port(80)]),
        ("{target: '80', published: 8080}", [port(80, 8080)]),
        ("{target: 80, published: '8083-9000'}", [port(80, 8083, published_end=9000)]),
        ("{target: 80, published: ''}", [port(80)]),
        ("{target: 53, published: '53', protocol: udp, host_ip: 127.0.0.1, mode: host, name: dns, app_protocol: dns}", [port(53, 53, protocol="udp", host_ip="127.0.0.1")]),
    ],
)  # fmt: skip
def test_a_port_has_all_its_forms(service: Callable[..., ComposeService], text: str, ports: list[Port]) -> None:
    assert service(f"ports: [{text}]").ports == tuple(ports)


def test_a_port_is_there_once(service: Callable[..., ComposeService]) -> None:
    assert service("ports: ['80-82:80-82', '81:81', {target: 82, published: 82}]").ports == tuple(
        port(number, number) for number in (80, 81, 82)
    )


HINT = '\n  hint: for example "8080:80", "127.0.0.1:8080:80/tcp" or "9000-9002:9000-9002"'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "ports[0]: 'x' is no port, nor a range of them" + HINT),
        ("'0'", "ports[0]: '0' is no port, nor a range of them" + HINT),
        ("99999", "ports[0]: '99999' is no port, nor a range of them" + HINT),
        ("'82-80'", "ports[0]: '82-80' is no port, nor a range of them" + HINT),
        ("''", "ports[0]: '' is no port" + HINT),
        ("80.5", "ports[0]: '80.5' is no port, nor a range of them" + HINT),
        ("'80/sctp'", "ports[0]: '80/sctp' has the protocol 'sctp'\n  hint: there are tcp and udp"),
        ("'80-81:80-82'", "ports[0]: '80-81:80-82' has ranges of different lengths" + HINT),
        ("'1.2.3:80:80'", "ports[0]: '1.2.3' is no IP address" + HINT),
        ("'[::1]:80'", "ports[0]: '[::1]:80' has an address and one port\n  hint: write [address]:published:target"),
        ("{published: 80}", "ports[0]: lacks target\n  hint: the port in the sandbox"),
        ("{target: 80-81}", "ports[0].target: '80-81' is more than one port\n  hint: write each, or the short form"),
        ("{target: 80, protocol: sctp}", "ports[0].protocol: 'sctp' is not known\n  hint: there is tcp, udp"),
        ("{target: 80, host_ip: x}", "ports[0].host_ip: 'x' is no IP address" + HINT),
        ("{target: 80, mode: x}", "ports[0].mode: 'x' is not known\n  hint: there is host, ingress"),
    ],
)
def test_what_is_no_port_is_said(mistake: Callable[..., str], text: str, said: str) -> None:
    assert mistake(f"ports: [{text}]") == said


def test_the_hosts_network_has_no_mapped_ports(mistake: Callable[..., str]) -> None:
    assert mistake("network_mode: host\nports: [80]") == (
        "ports: cannot be mapped with network_mode: host\n  hint: they are the host's already; leave ports out"
    )


def test_exposed_ports_are_expanded(service: Callable[..., ComposeService]) -> None:
    web = service("expose: ['3000', 80, '8000-8002/udp', '80/tcp']")
    assert web.expose == ((3000, "tcp"), (80, "tcp"), (8000, "udp"), (8001, "udp"), (8002, "udp"))


def test_what_cannot_be_exposed_is_said(mistake: Callable[..., str]) -> None:
    assert mistake("expose: ['80:80']") == (
        'expose[0]: \'80:80\' is no port, nor a range of them\n  hint: for example "3000" or "8000-8005/udp"'
    )
