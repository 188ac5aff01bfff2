"""A proxy before a registry, which does what registries should not."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable


@dataclass
class Sent:
    """An answer on its way through the proxy; ``cut`` is after how many bytes of the body the connection breaks."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: int | None = None
    stall: threading.Event | None = None


class Proxy(http.server.ThreadingHTTPServer):
    """Stands before the registry ``upstream``; each of ``faults``, for a request like its pattern, changes the answer."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.faults: list[tuple[str, int, Callable[[Sent], None]]] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Forwarding)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def fault(self, pattern: str, change: Callable[[Sent], None], times: int = 1 << 30) -> None:
        """Have ``change`` spoil the answers to the next ``times`` requests ``METHOD PATH`` like ``pattern``."""
        self.faults.append((pattern, times, change))

    def requests(self, pattern: str) -> list[dict[str, str]]:
        """Return the headers of the requests like ``pattern``."""
        return [headers for line, headers in list(self.seen) if re.search(pattern, line)]

    def spoil(self, line: str, sent: Sent) -> None:
        for number, (pattern, times, change) in enumerate(self.faults):
            if times > 0 and re.search(pattern, line):
                self.faults[number] = pattern, times - 1, change
                change(sent)
                return

    def handle_error(self, *_said: object) -> None:
        pass  # who was cut off goes away


class _Forwarding(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def forward(self) -> None:
        line = f"{self.command} {self.path}"
        self.server.seen.append((line, dict(self.headers)))
        sent = self._upstream()
        self.server.spoil(line, sent)
        self.send_response(sent.status)
        for name, value in sent.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent.body if sent.cut is None else sent.body[: sent.cut])
        if sent.stall is not None:
            self.wfile.flush()
            sent.stall.wait()
        self.close_connection = sent.cut is not None or sent.stall is not None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.forward
        raise AttributeError(name)

    def _upstream(self) -> Sent:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(self.server.upstream)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body or None, {**self.headers, "Host": self.headers["Host"]})
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name != "Transfer-Encoding"}
            data = answer.read()
            if self.command != "HEAD":
                headers["Content-Length"] = str(len(data))
            return Sent(answer.status, headers, data)

    def log_message(self, *_said: object) -> None:
        pass
