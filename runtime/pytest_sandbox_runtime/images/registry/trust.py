"""PYTEST_DONT_REWRITE. Which certificates are believed, and which are shown: the system's, SSL_CERT_FILE, certs.d.

``certs.d/HOST:PORT`` holds authorities as ``*.crt``, and what to show as ``*.cert`` with its ``*.key``: as Docker and
podman have it. SSL_CERT_FILE and SSL_CERT_DIR are OpenSSL's own.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM = ("/etc/docker/certs.d", "/etc/containers/certs.d")


def context_for(host: str, environ: Mapping[str, str], *, is_insecure: bool = False) -> ssl.SSLContext:
    """Return how to speak TLS with ``host``, an insecure one with whoever answers; raises RegistryError."""
    context = ssl.create_default_context()
    if is_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for directory in _directories(host, environ):
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            try:
                _add(context, path)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
                raise RegistryError(f"the certificate {path} cannot be used: {why}") from error
    return context


def _add(context: ssl.SSLContext, path: str) -> None:
    if path.endswith(".crt"):
        context.load_verify_locations(path)
    elif path.endswith(".cert"):
        context.load_cert_chain(path, path.removesuffix(".cert") + ".key")


def _directories(host: str, environ: Mapping[str, str]) -> Iterator[str]:
    config = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    for above in (*SYSTEM, f"{config}/docker/certs.d", f"{config}/containers/certs.d"):
        directory = os.path.join(above, host)
        if os.path.isdir(directory):
            yield directory
