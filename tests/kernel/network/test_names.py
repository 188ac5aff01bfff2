"""Names of a network: in /etc/hosts, and by DNS at the gateway; dnslib is the oracle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import dnslib
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime import LiveNetwork, Sandbox

pytestmark = pytest.mark.needs("overlay-on-host", "networks", "python3")

ASK = """
import socket, struct, sys
query, how = bytes.fromhex(sys.argv[1]), sys.argv[2]
gateway = [line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver")][0]
if how == "udp":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.sendto(query, (gateway, 53))
        print(asking.recv(65536).hex())
else:
    with socket.create_connection((gateway, 53), 5) as asking:
        # In two pieces, as TCP may.
        asking.sendall(struct.pack("!H", len(query)) + query[:5])
        asking.sendall(query[5:])
        size = struct.unpack("!H", asking.recv(2, socket.MSG_WAITALL))[0]
        print(asking.recv(size, socket.MSG_WAITALL).hex())
"""


def ask(sandbox: Sandbox, name: str, kind: str, how: str = "udp", query: Any = None) -> Any:
    question = query or dnslib.DNSRecord.question(name, kind)
    outcome = sandbox.run(["python3", "-c", ASK, question.pack().hex(), how], check=True)
    reply = dnslib.DNSRecord.parse(bytes.fromhex(str(outcome.stdout).strip()))
    assert reply.header.id == question.header.id
    assert reply.header.qr == 1
    return reply


def answers(reply: Any) -> list[str]:
    return [str(record.rdata) for record in reply.rr]


@pytest.mark.parametrize("how", ["udp", "tcp"])
def test_a_name_stands_for_its_addresses(network: LiveNetwork, create: Callable[..., Sandbox], how: str) -> None:
    client, server = create(network), create(network.join("db", "Db.Example.ORG"))
    assert answers(ask(client, "db", "A", how)) == [server.ip]
    assert answers(ask(client, "DB", "AAAA", how)) == [server.addresses[1]]
    assert answers(ask(client, "db.example.org", "A", how)) == [server.ip]


def test_an_address_stands_for_its_name(network: LiveNetwork, create: Callable[..., Sandbox]) -> None:
    client, server = create(network), create(network.join("db"))
    assert answers(ask(client, "3.0.77.10.in-addr.arpa", "PTR")) == ["db."]
    backwards = ".".join(reversed("fd780a4d" + "0" * 23 + "3")) + ".ip6.arpa"
    assert server.addresses[1] == "fd78:a4d::3"
    assert answers(ask(client, backwards, "PTR")) == ["db."]


def test_an_alias_of_several_stands_for_all_of_them(network: LiveNetwork, create: Callable[..., Sandbox]) -> None:
    client = create(network)
    servers = [create(network.join("web")) for _ in range(3)]
    assert sorted(answers(ask(client, "web", "A"))) == sorted(server.ip for server in servers)


def test_what_does_not_fit_into_a_datagram_is_had_by_tcp_or_edns(
    network: LiveNetwork, create: Callable[..., Sandbox]
) -> None:
    client = create(network)
    for _ in range(32):
        create(network.join("web"))
    short = ask(client, "web", "A")
    assert short.header.tc == 1
    assert not short.rr
    assert len(ask(client, "web", "A", "tcp").rr) == 32
    extended = dnslib.DNSRecord.question("web", "A")
    extended.add_ar(dnslib.EDNS0(udp_len=4096))
    assert len(ask(client, "web", "A", query=extended).rr) == 32


def test_a_name_that_is_none_is_said_to_be_none(network: LiveNetwork, create: Callable[..., Sandbox]) -> None:
    client = create(network.join("me"))
    assert ask(client, "nowhere.example", "A").header.rcode == dnslib.RCODE.NXDOMAIN
    has_other_kinds = ask(client, "me", "MX")
    assert (has_other_kinds.header.rcode, has_other_kinds.rr) == (dnslib.RCODE.NOERROR, [])


def test_who_asks_over_one_network_hears_of_its_others(
    engine: Any, network: LiveNetwork, create: Callable[..., Sandbox]
) -> None:
    with engine.network() as back:
        web = create(network.join("web"), back)
        database = create(back.join("db"))
        assert answers(ask(web, "db", "A")) == [database.ip]
        assert ask(create(network), "db", "A").header.rcode == dnslib.RCODE.NXDOMAIN


def test_names_come_and_go_with_their_sandboxes(network: LiveNetwork, create: Callable[..., Sandbox]) -> None:
    client, server = create(network), create(network.join("db"))
    assert answers(ask(client, "db", "A")) == [server.ip]
    server.close()
    later = create(network.join("later"))
    assert answers(ask(client, "later", "A")) == [later.ip]
    assert ask(client, "db", "A").header.rcode == dnslib.RCODE.NXDOMAIN
    assert " db" not in client.read_text("/etc/hosts")


def test_the_hostname_is_a_name_for_the_others(network: LiveNetwork, create: Callable[..., Sandbox]) -> None:
    client = create(network)
    named = create(network, hostname="mail.example")
    assert client.run("getent hosts mail.example").stdout.split()[0] in named.addresses
    assert named.run("getent ahostsv4 mail.example").stdout.split()[0] == named.ip


def test_libc_finds_names_without_dns(network: LiveNetwork, create: Callable[..., Sandbox]) -> None:
    client = create(network)
    create(network.join("db"))
    look = "import json, socket; print(json.dumps(sorted({a[4][0] for a in socket.getaddrinfo('db', 1)})))"
    found = json.loads(str(client.run(["python3", "-c", look], check=True).stdout))
    assert found == ["10.77.0.3", "fd78:a4d::3"]


def test_rubbish_is_not_answered_and_hurts_nobody(network: LiveNetwork, create: Callable[..., Sandbox]) -> None:
    client = create(network.join("me"))
    rubbish = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
    rubbish += "[s.sendto(bytes([n]) * n, ('10.77.0.1', 53)) for n in range(1, 60)]"
    client.run(["python3", "-c", rubbish], check=True)
    assert answers(ask(client, "me", "A")) == [client.ip]


def test_one_on_no_network_knows_its_own_addresses_too(create: Callable[..., Sandbox]) -> None:
    # As asyncio and others ask: only what the machine has addresses for.
    ask = "s.getaddrinfo(one, 80, flags=s.AI_ADDRCONFIG)[0][4][0]"
    program = f"import socket as s; print(*({ask} for one in ('127.0.0.1', '::1')))"
    assert create().run(["python3", "-c", program], check=True).stdout == "127.0.0.1 ::1\n"
