"""PYTEST_DONT_REWRITE. Who listens in a sandbox: sock_diag(7), asked in its network namespace.

/proc/net/tcp says the same, but walks through all connections of the machine: 8 ms each time.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from pytest_sandbox_runtime.network.watch import RESOLVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_sandbox_runtime.control import Control

_NETLINK_SOCK_DIAG, _BY_FAMILY, _REQUEST_DUMP, _DONE, _ERROR = 4, 20, 0x301, 3, 2
# The states of <net/tcp_states.h>: TCP listens, and UDP is bound to a port and to no peer.
_STATES = {"tcp": 1 << 10, "udp": 1 << 7}
_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
# The kernel tells nobody of a new listener. Between two looks passes a tenth of the time that was waited, at least and
# at most so many seconds.
_LEAST, _MOST = 0.001, 0.05


class Listener(NamedTuple):
    """A socket that waits for others, at an address as it is written."""

    protocol: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.protocol}"


class Listeners:
    """Those of the sandbox behind ``control``; the socket to ask by is made when it is first needed."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._diag: socket.socket | None = None

    def close(self) -> None:
        """Close that socket. Again: nothing."""
        diag, self._diag = self._diag, None
        if diag is not None:
            diag.close()

    def all(self) -> tuple[Listener, ...]:
        """Return all of TCP and UDP, but for its resolver; raises SandboxClosedError where the sandbox is dead."""
        return tuple(one for protocol in _STATES for one in self._of(protocol))

    def has(self, port: int, protocol: str) -> bool:
        """Return whether somebody listens at ``port`` by ``protocol``."""
        return port in [one.port for one in self._of(protocol)]

    def said(self) -> str:
        """Return who listens, for an error to say."""
        return ", ".join(map(str, self.all())) or "nobody"

    def _of(self, protocol: str) -> Iterator[Listener]:
        for family in (socket.AF_INET, socket.AF_INET6):
            # struct inet_diag_req_v2, for whatever socket in those states.
            body = struct.pack("BBBxI48x", family, _NUMBERS[protocol], 0, _STATES[protocol])
            # To its end: the kernel begins no answer before the last one was read.
            for message in list(self._dump(body)):
                (port,) = struct.unpack_from("!H", message, 4)
                size = 4 if message[0] == socket.AF_INET else 16
                listener = Listener(protocol, socket.inet_ntop(message[0], message[8 : 8 + size]), port)
                if listener.host != RESOLVER:
                    yield listener

    def _dump(self, body: bytes) -> Iterator[bytes]:
        if self._diag is None:
            self._diag = self._control.open_socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
            )
        self._diag.send(struct.pack("IHHII", 16 + len(body), _BY_FAMILY, _REQUEST_DUMP, 0, 0) + body)
        while True:
            answer, at = self._diag.recv(65536), 0
            while at + 16 <= len(answer):
                size, kind = struct.unpack_from("IH", answer, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -struct.unpack_from("i", answer, at + 16)[0]
                    raise OSError(code, f"the kernel does not say who listens: {os.strerror(code)}")
                yield answer[at + 16 : at + size]
                at += (size + 3) & ~3


def wait_until(check: Callable[[], bool], pidfd: int, timeout: float) -> bool:
    """Return whether ``check`` holds within ``timeout`` seconds; False at once where the sandbox dies."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    began = time.monotonic()
    while not check():
        waited = time.monotonic() - began
        if waited >= timeout or poll.poll(pause_after(waited, timeout) * 1000):
            return False
    return True


def pause_after(waited: float, timeout: float) -> float:
    """Return how many seconds to wait before the next look, ``waited`` seconds after the first."""
    return min(max(_LEAST, waited / 10), _MOST, max(_LEAST, timeout - waited))
