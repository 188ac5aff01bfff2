"""PYTEST_DONT_REWRITE. TCP connections into a sandbox: what its init has begun is waited for here."""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_sandbox_runtime.control import Control


def connect(control: Control, host: str, port: int, name: str, timeout: float) -> socket.socket:
    """Return a socket connected to ``port`` of ``host`` as if from inside the sandbox ``name``; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        connection = control.connect(family, (host, port))
    except OSError as error:
        raise _error(error.errno or 0, host, port, name) from None
    try:
        _await(connection, host, port, name, timeout)
    except BaseException:
        connection.close()
        raise
    return connection


def _error(code: int, host: str, port: int, name: str) -> OSError:
    return OSError(code, f"{os.strerror(code)} by port {port} of {host} in sandbox {name}")


def _await(connection: socket.socket, host: str, port: int, name: str, timeout: float) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    if not poll.poll(timeout * 1000):
        raise TimeoutError(
            errno.ETIMEDOUT, f"port {port} of {host} in sandbox {name} did not answer within {timeout:g} s"
        )
    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise _error(code, host, port, name)
    connection.setblocking(True)
