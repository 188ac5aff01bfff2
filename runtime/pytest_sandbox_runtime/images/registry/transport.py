"""PYTEST_DONT_REWRITE. Requests by HTTP: pools, proxies, TLS, redirects, and patience with who is busy.

Where a redirect leads to another host, credentials stay behind.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import unquote, urljoin, urlsplit

import urllib3

from pytest_sandbox_runtime.errors import RegistryError, RegistryUnreachableError
from pytest_sandbox_runtime.images.registry.endpoints import is_loopback
from pytest_sandbox_runtime.images.registry.trouble import TROUBLE, is_passing, unreachable
from pytest_sandbox_runtime.images.registry.trust import context_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Self

    from pytest_sandbox_runtime.images.registry.meter import Metered

    Body = bytes | Metered | None

AGENT = "pytest-sandbox"
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
BUSY = (429, 500, 502, 503, 504)
_BLOCK = 1 << 18
_MOST_SAID = 1 << 16


class Patience(NamedTuple):
    """How often something is tried, what is waited before the second time (then twice as long each), and for how long.

    ``longest`` is the longest wait that a server can ask for, ``silence`` how long it may say nothing.
    """

    tries: int = 5
    first: float = 0.25
    longest: float = 60.0
    connect: float = 10.0
    silence: float = 30.0


class Answer:
    """What a server has answered: ``url`` is where from in the end. To be closed, or read to its end."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        self._response = response
        self.url = url
        self.status = response.status
        self.headers = response.headers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def host(self) -> str:
        """Who has answered."""
        return urlsplit(self.url).netloc

    def close(self) -> None:
        """Read no more of it; a connection whose answer has all but come is used again."""
        left = self._response.length_remaining
        if left is not None and left <= _MOST_SAID:
            self._response.drain_conn()
        self._response.close()

    def break_off(self) -> None:
        """Have whoever reads it in another thread find it at its end."""
        with contextlib.suppress(RuntimeError, ValueError, OSError):
            self._response.shutdown()

    def read(self, size: int) -> bytes:
        """Return what comes next, up to ``size`` bytes of it; raises what TROUBLE names."""
        return self._response.read1(size, decode_content=False) or b""

    def told(self) -> str:
        """Return what a registry says of why it said no, in the words of the distribution-spec where it has these."""
        said = ""
        with contextlib.suppress(RegistryError, ValueError, TypeError, KeyError, AttributeError, *TROUBLE):
            errors = json.loads(self.content(_MOST_SAID, "what it says"))["errors"]
            said = ", ".join(str(one.get("message") or one["code"]) for one in errors)[:300]
        words = "".join(letter if letter.isprintable() else " " for letter in said)
        return f"{self.status} {words or http.client.responses.get(self.status, '')}".strip()

    def content(self, limit: int, what: str) -> bytes:
        """Return all of it; raises RegistryError, about ``what``, where that is more than ``limit`` bytes.

        Raises what TROUBLE names where it is cut.
        """
        found = bytearray()
        with self:
            while data := self.read(min(_MOST_SAID, limit + 1 - len(found))):
                found += data
                if len(found) > limit:
                    raise RegistryError(f"{what} of {self.host} holds more than the {limit} bytes that it may")
        return bytes(found)


class _InsecureConnection(urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.is_verified = True  # else urllib3 warns of what the user has asked for


class _Insecure(urllib3.HTTPSConnectionPool):
    ConnectionCls = _InsecureConnection


class Transport:
    """Sends requests; from several threads at a time. ``environ`` is where proxies and certificates are named."""

    def __init__(self, environ: Mapping[str, str], patience: Patience) -> None:
        self.patience = patience
        self._environ = environ
        self._pools: dict[tuple[str, bool], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def request(
        self, method: str, url: str, headers: Mapping[str, str], *, body: Body = None, is_insecure: bool = False
    ) -> Answer:
        """Return the last answer: busy servers were asked again, redirects followed. Raises RegistryError."""
        for wait in self.waits():
            try:
                answer = self.once(method, url, headers, body=body, is_insecure=is_insecure)
            except RegistryUnreachableError as error:
                if wait is None or not _is_repeatable(method, body) or not is_passing(error.__cause__):
                    raise
                self.pause(wait, urlsplit(url).netloc)
                continue
            if wait is None or answer.status not in BUSY or not _is_repeatable(method, body):
                return answer
            answer.close()
            self.pause(max(wait, self._asked(answer)), answer.host)
        raise AssertionError  # the last wait is None

    def once(
        self, method: str, url: str, headers: Mapping[str, str], *, body: Body = None, is_insecure: bool = False
    ) -> Answer:
        """Return the first answer, redirects followed; raises RegistryError."""
        try:
            return self._follow(method, url, headers, body, is_insecure=is_insecure)
        except TROUBLE as error:
            raise unreachable(urlsplit(url).netloc, error) from error

    def waits(self) -> Iterator[float | None]:
        """Yield how long to wait after each try in turn, None after the last."""
        for number in range(self.patience.tries - 1):
            yield self.patience.first * 2**number
        yield None

    def pause(self, seconds: float, host: str, stopped: threading.Event | None = None) -> None:
        """Wait, no longer than until ``stopped``; raises RegistryError where that is more than ``host`` can ask for."""
        if seconds > self.patience.longest:
            raise RegistryError(f"{host} is busy, and wants to be asked again in {seconds:.0f} s", status=429)
        (stopped or threading.Event()).wait(seconds)

    def _asked(self, answer: Answer) -> float:
        said = answer.headers.get("Retry-After", "").strip()
        if said.isdecimal():
            return float(said)
        then = email.utils.parsedate_tz(said)
        return max(0.0, email.utils.mktime_tz(then) - time.time()) if then else 0.0

    def _follow(self, method: str, url: str, headers: Mapping[str, str], body: Body, *, is_insecure: bool) -> Answer:
        headers = {"User-Agent": AGENT, **headers}
        for _ in range(_MOST_REDIRECTS):
            answer = self._send(method, url, headers, body, is_insecure=is_insecure)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location or not _is_repeatable(method, body):
                return answer
            answer.close()
            there = urljoin(url, location)
            _check(url, there, is_insecure=is_insecure)
            if _origin(there) != _origin(url):
                headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
                is_insecure = False
            url = there
        raise RegistryError(
            f"{urlsplit(url).netloc} leads from one place to another, more than {_MOST_REDIRECTS} times"
        )

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Body, *, is_insecure: bool) -> Answer:
        pool, content = self._pool(url, is_insecure=is_insecure), cast("Any", body)
        response = pool.request(
            method, url, headers=headers, body=content, retries=False, redirect=False, preload_content=False
        )
        return Answer(response, url)

    def _pool(self, url: str, *, is_insecure: bool) -> urllib3.PoolManager:
        key = _origin(url), is_insecure
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._new_pool(urlsplit(url).scheme, urlsplit(url).netloc, is_insecure=is_insecure)
            return self._pools[key]

    def _new_pool(self, scheme: str, host: str, *, is_insecure: bool) -> urllib3.PoolManager:
        timeout = urllib3.Timeout(connect=self.patience.connect, read=self.patience.silence)
        options: dict[str, Any] = {"maxsize": 8, "timeout": timeout, "blocksize": _BLOCK}
        if scheme == "https":  # else no certificate is asked for, and reading the system's takes 20 ms
            options["ssl_context"] = context_for(host, self._environ, is_insecure=is_insecure)
        proxy = self._proxy(scheme, host)
        user = urllib3.util.parse_url(proxy).auth if proxy else None
        show = urllib3.make_headers(proxy_basic_auth=unquote(user)) if user else None
        pool = urllib3.ProxyManager(proxy, proxy_headers=show, **options) if proxy else urllib3.PoolManager(**options)
        if is_insecure:
            pool.pool_classes_by_scheme = {**pool.pool_classes_by_scheme, "https": _Insecure}
        return pool

    def _proxy(self, scheme: str, host: str) -> str | None:
        given = {
            name.lower(): value for name, value in self._environ.items() if value and name.lower().endswith("_proxy")
        }
        proxies = {name.removesuffix("_proxy"): value for name, value in given.items()}
        if is_loopback(host) or urllib.request.proxy_bypass(host, proxies):
            return None
        proxy = proxies.get(scheme) or proxies.get("all")
        return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _is_repeatable(method: str, body: Body) -> bool:
    """Whether it may be sent again: of what is sent here, an upload that was begun twice does no harm, either."""
    return method in ("GET", "HEAD") or isinstance(body, bytes)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _check(url: str, there: str, *, is_insecure: bool) -> None:
    before, after = urlsplit(url), urlsplit(there)
    is_downgrade = before.scheme == "https" and after.scheme == "http" and not is_insecure
    if after.scheme not in ("http", "https") or not after.netloc or is_downgrade:
        raise RegistryError(f"{before.netloc} leads to {after.scheme}://{after.netloc}, where nobody follows")
