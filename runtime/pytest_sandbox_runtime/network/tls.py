"""PYTEST_DONT_REWRITE. A way out that speaks TLS to the sandboxes, and plainly to the server behind it.

A thread for each connection: what it does is a handshake and a few requests of a test, not a transfer.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading

_CHUNK = 65536


def serve(listener: int, addresses: tuple[str, ...], port: int, certificate: str) -> None:
    """Serve ``listener`` for ever, as who has the key and the chain in the file ``certificate``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.socket(fileno=listener) as accepting:
        accepting.setblocking(True)
        while True:
            connection, _ = accepting.accept()
            threading.Thread(target=_talk, args=(context, connection, addresses, port), daemon=True).start()


def _talk(context: ssl.SSLContext, connection: socket.socket, addresses: tuple[str, ...], port: int) -> None:
    # Whatever goes wrong on one side is the end of the other.
    with (
        contextlib.suppress(OSError),
        connection,
        _connect(addresses, port) as far,
        context.wrap_socket(connection, server_side=True) as near,
    ):
        _pump(near, far)


def _connect(addresses: tuple[str, ...], port: int) -> socket.socket:
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port))
    return socket.create_connection((addresses[-1], port))


def _pump(near: ssl.SSLSocket, far: socket.socket) -> None:
    while True:
        # What is decrypted already no poll tells of.
        ready = [near] if near.pending() else select.select([near, far], [], [])[0]
        for source, target in ((near, far), (far, near)):
            if source in ready:
                data = source.recv(_CHUNK)
                if not data:
                    return
                target.sendall(data)
