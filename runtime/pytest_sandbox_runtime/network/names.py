"""PYTEST_DONT_REWRITE. Names of a network: as lines for hosts(5), and as answers of DNS, RFC 1035 and 3596."""

from __future__ import annotations

import struct

from pytest_sandbox_runtime.kernel.light import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Addresses = tuple[bytes, ...]

# The machine as sandboxes see it: the gateway of their network, at which ports are exposed. The word is Docker's.
HOST_GATEWAY = "host-gateway"
A, PTR, OPT, AAAA, ANY = 1, 12, 41, 28, 255
_INTERNET = 1
_NO_ERROR, _FORMAT_ERROR, _NO_SUCH_NAME, _NOT_IMPLEMENTED = 0, 1, 3, 4
_ANSWER, _AUTHORITATIVE, _TRUNCATED, _RECURSION_WANTED, _RECURSION = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_PLAIN_LIMIT = 512
# A name is answered with what it stands for now.
_TTL = 0


def spelled(address: bytes) -> str:
    """Return an address as people write it."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def hosts_lines(members: Iterable[tuple[tuple[str, ...], Addresses]]) -> bytes:
    """Return the lines of hosts(5) for members of a network: names, and the addresses that they stand for."""
    return "".join(
        f"{spelled(address)} {' '.join(names)}\n" for names, addresses in members if names for address in addresses
    ).encode()


def reversed_name(address: bytes) -> str:
    """Return the name that DNS has the name of ``address`` at."""
    if len(address) == 4:
        return ".".join(str(byte) for byte in reversed(address)) + ".in-addr.arpa"
    return ".".join(reversed(address.hex())) + ".ip6.arpa"


class Question:
    """The first question of a query, of which ``raw`` is what goes back to who has asked."""

    def __init__(self, query: bytes) -> None:
        """Read ``query``; raises ValueError where it is none."""
        try:
            self.id, self.flags, questions, _, _, extra = struct.unpack_from("!6H", query)
            labels, at = _labels(query, 12)
            self.kind, self.category = struct.unpack_from("!HH", query, at)
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise ValueError("no query of DNS") from error
        if self.flags & _ANSWER or questions != 1:
            raise ValueError("no query of DNS")
        self.name = ".".join(labels).lower()
        self.raw = query[12 : at + 4]
        # Where EDNS (RFC 6891) is spoken, its record says how much may come back.
        self.limit = _PLAIN_LIMIT
        self.has_edns = False
        if extra and query[at + 4 : at + 7] == b"\0" + struct.pack("!H", OPT):
            self.has_edns = True
            self.limit = max(_PLAIN_LIMIT, struct.unpack_from("!H", query, at + 7)[0])

    @property
    def is_standard(self) -> bool:
        """Whether it asks for records of the internet's, and nothing else."""
        return not self.flags & 0x7800 and self.category == _INTERNET


def _labels(query: bytes, at: int) -> tuple[list[str], int]:
    labels = []
    while length := query[at]:
        if length > 63:
            raise IndexError
        labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    return labels, at + 1


def answer(question: Question, zone: Mapping[str, list[bytes]], names: Mapping[str, str], *, limit: int = 0) -> bytes:
    """Return the answer to ``question`` from the addresses of ``zone`` and the ``names`` that reversed ones have.

    ``limit`` is how many bytes it may have, of what the question allows where it is 0.
    """
    if not question.is_standard:
        return _reply(question, _NOT_IMPLEMENTED, ())
    if question.name in names:
        records = [_record(PTR, _encoded(names[question.name]))] if question.kind in (PTR, ANY) else []
        return _reply(question, _NO_ERROR, records)
    if question.name not in zone:
        return _reply(question, _NO_SUCH_NAME, ())
    records = [
        _record(A if len(address) == 4 else AAAA, address)
        for address in zone[question.name]
        if question.kind in (ANY, A if len(address) == 4 else AAAA)
    ]
    reply = _reply(question, _NO_ERROR, records)
    if len(reply) > (limit or question.limit):
        return _reply(question, _NO_ERROR, (), truncated=True)
    return reply


def _record(kind: int, data: bytes) -> bytes:
    # 0xC00C points to the name in the question.
    return struct.pack("!HHHIH", 0xC00C, kind, _INTERNET, _TTL, len(data)) + data


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def _reply(question: Question, code: int, records: Iterable[bytes], *, truncated: bool = False) -> bytes:
    records = tuple(records)
    flags = _ANSWER | _AUTHORITATIVE | _RECURSION | (question.flags & (0x7800 | _RECURSION_WANTED)) | code
    flags |= _TRUNCATED if truncated else 0
    extra = b"\0" + struct.pack("!HHIH", OPT, 4096, 0, 0) if question.has_edns else b""
    head = struct.pack("!6H", question.id, flags, 1, len(records), 0, 1 if extra else 0)
    return head + question.raw + b"".join(records) + extra
