"""PYTEST_DONT_REWRITE. Who listens in a sandbox: proc_net_tcp of the kernel's documentation."""

from __future__ import annotations

import select
import socket
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LISTEN = "0A"
# A bound socket of UDP, in the words of TCP.
_UNCONNECTED = "07"
# The kernel tells nobody of a new listener. Seconds between two looks, the first ones and at most.
_FIRST, _MOST = 0.001, 0.02


class Listener(NamedTuple):
    """A socket that waits for others, at an address as it is written."""

    protocol: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.protocol}"


def listeners(pid: int) -> tuple[Listener, ...]:
    """Return who listens in the network namespace of the process ``pid``; nobody where that is dead."""
    found: list[Listener] = []
    for name, state in (("tcp", _LISTEN), ("tcp6", _LISTEN), ("udp", _UNCONNECTED), ("udp6", _UNCONNECTED)):
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
                found += _parse(name[:3], state, list(file)[1:])
        except OSError:
            continue
    return tuple(found)


def _parse(protocol: str, state: str, lines: Iterable[str]) -> list[Listener]:
    found = []
    for line in lines:
        _, local, _, status, *_ = line.split()
        if status == state:
            host, port = local.split(":")
            found.append(Listener(protocol, _address(host), int(port, 16)))
    return found


def _address(digits: str) -> str:
    # Words of four bytes, each in the order of this machine.
    raw = b"".join(int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def listens(pid: int, port: int, protocol: str) -> bool:
    """Return whether somebody listens at ``port`` by ``protocol``."""
    return any(one.port == port and one.protocol == protocol for one in listeners(pid))


def wait_until(check: Callable[[], bool], pidfd: int, timeout: float) -> bool:
    """Return whether ``check`` holds within ``timeout`` seconds; False at once where the sandbox dies."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline, pause = time.monotonic() + timeout, _FIRST
    while not check():
        left = deadline - time.monotonic()
        if left <= 0 or poll.poll(max(1, min(pause, left) * 1000)):
            return False
        pause = min(pause * 2, _MOST)
    return True


def said(pid: int) -> str:
    """Return who listens, for an error to say."""
    return ", ".join(map(str, listeners(pid))) or "nobody"
