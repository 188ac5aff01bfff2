"""Which addresses networks and their hosts have."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.network.addresses import choose, host_of, plan
from pytest_sandbox_runtime.network.bridge import addresses_of, mac_of
from pytest_sandbox_runtime.specs.network import Network

SUBNETS = st.builds(
    lambda base, prefix: IPv4Network((base >> (32 - prefix) << (32 - prefix), prefix)),
    st.integers(0x0B000000, 0x7E000000),
    st.integers(8, 29),
)


def test_the_lowest_subnet_that_is_free_is_taken() -> None:
    first = choose(Network(), ())
    second = choose(Network(), (first,))
    assert (str(first), str(second)) == ("10.77.0.0/24", "10.77.1.0/24")
    assert choose(Network(), (second,)) == first
    assert str(choose(Network(), (IPv4Network("10.77.0.0/23"),))) == "10.77.2.0/24"


def test_there_is_an_end_of_them() -> None:
    with pytest.raises(SpecError, match=r"all subnets of 10\.77\.0\.0/16 are taken"):
        choose(Network(), (IPv4Network("10.64.0.0/10"),))


@given(SUBNETS, st.integers(2, 6))
def test_a_host_has_addresses_in_its_network_and_is_found_by_them(subnet: IPv4Network, host: int) -> None:
    made = plan(Network(subnet=str(subnet)), subnet)
    address4, address6 = addresses_of(made, host)
    assert ip_address(address4) in subnet
    assert host_of(str(ip_address(address4)), subnet) == host
    assert IPv6Address(address6).is_private
    assert mac_of(made, host) == b"\x02\x42" + address4


@given(SUBNETS, SUBNETS)
def test_networks_that_differ_differ_in_ipv6_too(one: IPv4Network, other: IPv4Network) -> None:
    first, second = (plan(Network(subnet=str(subnet)), subnet).net6[:8] for subnet in (one, other))
    assert (first == second) == (one.network_address == other.network_address)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"subnet": "10.0.0.1/24"}, "subnet='10.0.0.1/24' is none: 10.0.0.1/24 has host bits set"),
        ({"subnet": "ten"}, "subnet='ten' is none: 'ten' does not appear to be an IPv4 or IPv6 network"),
        ({"subnet": "fd00::/64"}, "subnet='fd00::/64' is of IPv6"),
        ({"subnet": "10.0.0.0/30"}, "has no room for two sandboxes and a gateway"),
        ({"subnet": "127.0.0.0/8"}, "is no place for hosts"),
        ({"subnet": "224.0.0.0/24"}, "is no place for hosts"),
        ({"name": "a b"}, "'a b' is not the name of a network"),
        ({"name": "x" * 254}, "is not the name of a network"),
        ({"mtu": 1000}, "mtu=1000 is no number of bytes from 1280 to 65535"),
        ({"mtu": 500, "ipv6": False}, "mtu=500 is no number of bytes from 576 to 65535"),
        ({"mtu": True}, "mtu=True is no number of bytes"),
    ],
)
def test_nonsense_is_refused(words: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError) as told:
        Network(**words)  # type: ignore[arg-type]
    assert said in str(told.value)
