"""A server of the tokens that a registry may want."""

from __future__ import annotations

import base64
import http.server
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.kernel.registry.registries import Authority


class TokenServer(http.server.ThreadingHTTPServer):
    """Gives out tokens: to read what is ``public/``, and to ``me`` for all; ``asked`` is what it was asked."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.asked: list[tuple[str, dict[str, list[str]], str]] = []
        super().__init__(("127.0.0.1", 0), _Tokens)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/token"

    def token(self, scopes: Sequence[str], *, is_known: bool) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            given = [one for one in actions.split(",") if is_known or (one == "pull" and name.startswith("public/"))]
            access.append({"type": kind, "name": name, "actions": given})
        now = int(time.time())
        claims = {"iss": "tests", "sub": "", "aud": "tests", "exp": now + 60, "nbf": now - 60, "iat": now, "jti": "x"}
        der = "".join(Path(self.authority.certificate).read_text().splitlines()[1:-1])
        parts = {"typ": "JWT", "alg": "RS256", "x5c": [der]}, {**claims, "access": access}
        signed = b".".join(_encoded(json.dumps(part).encode()) for part in parts)
        argv = ["openssl", "dgst", "-sha256", "-sign", self.authority.key]
        signature = subprocess.run(argv, input=signed, check=True, capture_output=True).stdout
        return (signed + b"." + _encoded(signature)).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class _Tokens(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def do_GET(self) -> None:
        said = self.headers.get("Authorization", "")
        is_known = said == "Basic " + base64.b64encode(b"me:pass:word").decode()
        self._answer(parse_qs(urlsplit(self.path).query), said, is_known=is_known)

    def do_POST(self) -> None:
        fields = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        fields["scope"] = fields.get("scope", [""])[0].split()
        self._answer(fields, "POST", is_known=fields.get("refresh_token") == ["refresh me"])

    def _answer(self, fields: dict[str, list[str]], said: str, *, is_known: bool) -> None:
        self.server.asked.append((self.command, fields, said))
        body = b'{"details": "incorrect username or password"}'
        if is_known or not said:
            token = self.server.token(fields.get("scope", []), is_known=is_known)
            body = json.dumps({"access_token" if self.command == "POST" else "token": token}).encode()
        self.send_response(200 if is_known or not said else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_said: object) -> None:
        pass
