"""Questions and answers of DNS, as dnslib has them, and lines for hosts(5)."""

from __future__ import annotations

import socket
from typing import Any

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.network.names import Question, answer, hosts_lines, reversed_name

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
ADDRESSES = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)


def asked(name: str, kind: str, zone: dict[str, list[bytes]], names: dict[str, str] | None = None) -> Any:
    query = dnslib.DNSRecord.question(name, kind)
    return dnslib.DNSRecord.parse(answer(Question(query.pack()), zone, names or {}))


def spelled(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


@given(NAMES, st.lists(ADDRESSES, min_size=1, max_size=8, unique=True), st.sampled_from(["A", "AAAA"]))
def test_dnslib_reads_the_addresses_of_a_name(name: str, addresses: list[bytes], kind: str) -> None:
    reply = asked(name, kind, {name: addresses})
    wanted = sorted(spelled(one) for one in addresses if len(one) == (4 if kind == "A" else 16))
    assert sorted(str(record.rdata) for record in reply.rr) == wanted
    assert reply.header.rcode == dnslib.RCODE.NOERROR
    assert (reply.header.aa, reply.header.ra, reply.header.tc) == (1, 1, 0)


@given(ADDRESSES, NAMES)
def test_dnslib_reads_the_name_of_an_address(address: bytes, name: str) -> None:
    backwards = reversed_name(address)
    reply = asked(backwards, "PTR", {}, {backwards: name})
    assert str(reply.rr[0].rdata) == f"{name}."


@given(NAMES)
def test_a_name_that_is_not_known_is_said_to_be_none(name: str) -> None:
    assert asked(name, "A", {}).header.rcode == dnslib.RCODE.NXDOMAIN


def test_other_kinds_and_classes_have_no_answers() -> None:
    assert asked("db", "MX", {"db": [b"\1\2\3\4"]}).rr == []
    query = dnslib.DNSRecord.question("db", "A", "CH")
    reply = dnslib.DNSRecord.parse(answer(Question(query.pack()), {"db": [b"\1\2\3\4"]}, {}))
    assert reply.header.rcode == dnslib.RCODE.NOTIMP


@given(st.binary(max_size=80))
def test_rubbish_is_no_question_and_nothing_worse(data: bytes) -> None:
    try:
        question = Question(data)
    except ValueError:
        return
    assert answer(question, {}, {})[:2] == data[:2]


def test_an_answer_is_no_question() -> None:
    reply = dnslib.DNSRecord.question("db").reply()
    with pytest.raises(ValueError, match="no query of DNS"):
        Question(reply.pack())


def test_hosts_have_a_line_for_each_address() -> None:
    members = [
        (("db", "db.example"), (b"\n\0\0\2", bytes(15) + b"\1")),
        ((), (b"\n\0\0\3",)),
        (("web",), (b"\n\0\0\4",)),
    ]
    assert hosts_lines(members) == b"10.0.0.2 db db.example\n::1 db db.example\n10.0.0.4 web\n"
