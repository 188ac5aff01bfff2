"""PYTEST_DONT_REWRITE. What urllib3 says when nobody answers, in words that say what to do."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, TypeVar

import urllib3.exceptions as http

from pytest_sandbox_runtime.errors import RegistryUnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

TROUBLE = (http.HTTPError, OSError)
_Error = TypeVar("_Error", bound=BaseException)


def is_passing(error: BaseException | None) -> bool:
    """Whether asking again may help: who was cut off or got no answer may get one; who was refused hardly will."""
    if error is None or isinstance(error, (http.NewConnectionError, http.ConnectTimeoutError)):
        return False
    if _within(error, ssl.SSLError):
        return False
    return isinstance(error, (http.TimeoutError, http.ProtocolError, http.ProxyError, OSError))


def unreachable(host: str, error: BaseException) -> RegistryUnreachableError:
    """Return what to say of ``error``, which came of speaking to ``host``."""
    said, hint = _explained(host, error)
    return RegistryUnreachableError(said, hint=hint)


def _explained(host: str, error: BaseException) -> tuple[str, str]:
    if isinstance(error, http.ProxyError):
        return f"the proxy does not let {host} be reached: {_last(error)}", "see HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    tls = _within(error, ssl.SSLError)
    if tls is not None:
        return _explained_tls(host, tls)
    if isinstance(error, http.NameResolutionError) or _within(error, socket.gaierror):
        return f"there is no host {host}, or no network", "the registry is what stands before the first / of a name"
    if _within(error, ConnectionRefusedError):
        return f"{host} refuses connections", "does the registry run there, and is the port right?"
    if isinstance(error, http.TimeoutError):
        return f"{host} does not answer", "is it reachable from here, or only by a proxy (HTTPS_PROXY)?"
    return f"the connection with {host} broke: {_last(error)}", "try again; what has come is kept"


def _explained_tls(host: str, error: ssl.SSLError) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {host} is not to be believed: {error.verify_message}",
            f"put its authority's into ~/.config/containers/certs.d/{host}/ca.crt, or name it in SSL_CERT_FILE",
        )
    hint = f'if it speaks no TLS and that is right, registries.conf can say so: location = "{host}", insecure = true'
    return f"{host} does not speak TLS as it should: {error.reason or error}", hint


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = [one for one in error.args if isinstance(one, BaseException)]
        error = inner[-1] if inner else error.__cause__ or error.__context__


def _within(error: BaseException, kind: type[_Error]) -> _Error | None:
    return next((one for one in _chain(error) if isinstance(one, kind)), None)


def _last(error: BaseException) -> str:
    last = list(_chain(error))[-1]
    return getattr(last, "strerror", None) or str(last) or type(last).__name__
