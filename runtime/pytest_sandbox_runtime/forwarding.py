"""PYTEST_DONT_REWRITE. Ports of a sandbox on the machine's loopback device, as the client asks for them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import SpecError, StartError
from pytest_sandbox_runtime.listening import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.connection import Connection
    from pytest_sandbox_runtime.reachable import Reachable

    Target = tuple[object, ...]
    Forward = Callable[..., tuple[str, int]]

PROTOCOLS = ("tcp", "udp")
_HERE = "127.0.0.1"
# Whoever listens listens mostly everywhere, or here.
_INSIDE = ("127.0.0.1", "::1")


def forwarder(connection: Connection, name: str) -> Forward:
    """Return what has a port of the sandbox ``name`` forwarded, each once."""
    known: dict[tuple[Target, str, int], tuple[str, int]] = {}

    def forward(target: Target, host: str = _HERE, port: int = 0) -> tuple[str, int]:
        key = target, host, port
        if key not in known:
            try:
                (_, *where), _ = connection.ask(("forward", name, target, host, port))
            except StartError as error:
                if error.code != errno.EADDRINUSE:
                    raise
                hint = "leave the port out, and ask address() for a free one"
                raise SpecError(f"port {port} of {host} is taken on this machine", hint=hint) from None
            known[key] = str(where[0]), int(where[1])
        return known[key]

    return forward


def target_of(port: int, protocol: str, addresses: tuple[str, ...] = ()) -> Target:
    """Return where ``port`` of a sandbox with ``addresses`` is; raises SpecError where there is no such port."""
    if protocol not in PROTOCOLS:
        raise SpecError(f"protocol={protocol!r} is none of {', '.join(PROTOCOLS)}")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise SpecError(f"port={port!r} is no number from 1 to 65535")
    return protocol, (*_INSIDE, *addresses), port


def address(
    sandbox: Reachable, forward: Forward, port: int | None, path: str | None, protocol: str, timeout: float
) -> tuple[str, int]:
    """Do what Sandbox.address does."""
    if (port is None) == (path is None):
        raise SpecError("an address is that of a port or of the path of a Unix socket, and of one of them")
    if path is not None:
        if not wait_until(lambda: sandbox.files.is_socket(path), sandbox.pidfd, timeout):
            msg = f"there is no Unix socket {path} in sandbox {sandbox.name} within {timeout:g} s"
            raise ConnectionRefusedError(errno.ECONNREFUSED, msg)
        return forward(("unix", path))
    port = port or 0
    target = target_of(port, protocol, sandbox.own_addresses)
    listeners = sandbox.listeners
    if not wait_until(lambda: listeners.has(port, protocol), sandbox.pidfd, timeout):
        msg = f"nobody listens at port {port}/{protocol} in sandbox {sandbox.name} within {timeout:g} s"
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"{msg}; who listens there: {listeners.said()}")
    if sandbox.spec.network == "host":
        return _HERE, port
    return forward(target)
