"""PYTEST_DONT_REWRITE. What is shown to a registry that asks: a name and a password, or a token that is had for them.

By Docker's token authentication: a registry says where tokens are given out, and one is good for some scopes, such as
``repository:library/debian:pull``, and for some time.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode, urlsplit

from pytest_sandbox_runtime.errors import RegistryAuthError, RegistryError
from pytest_sandbox_runtime.images.registry.challenge import Challenge, parse_challenges
from pytest_sandbox_runtime.images.registry.endpoints import is_loopback
from pytest_sandbox_runtime.images.registry.transport import AGENT
from pytest_sandbox_runtime.images.registry.trouble import TROUBLE, unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_sandbox_runtime.images.registry.credentials import Credential, Found, Keyring
    from pytest_sandbox_runtime.images.registry.transport import Answer, Transport

    Scopes = tuple[str, ...]

_MOST = 1 << 20
# Until when a token is good that does not say; and how much of its time is left to the request.
_DEFAULT_LIFE = 60.0
_MARGIN = 0.9


class Token(NamedTuple):
    """What the header Authorization says, until ``ends``."""

    header: str
    ends: float

    def __repr__(self) -> str:
        return f"Token(ends={self.ends})"


class Authorizer:
    """Shows who one is to the registry ``host``. Several threads that need the same token have it asked for once."""

    def __init__(self, transport: Transport, host: str, keyring: Keyring) -> None:
        self._transport = transport
        self._host = host
        self._keyring = keyring
        self._challenge: Challenge | None = None
        self._is_plain = False
        self._tokens: dict[tuple[str, Scopes], Token] = {}
        self._found: dict[str, Found] = {}
        self._lock = threading.Lock()

    def header(self, repository: str, scopes: Scopes) -> str | None:
        """Return what to say without being asked again; None where nothing was asked for so far."""
        with self._lock:
            return self._header(repository, scopes) if self._challenge is not None else None

    def answer(self, refused: Answer, said: str | None, repository: str, scopes: Scopes) -> str:
        """Return what to say instead of ``said``, which was ``refused``; raises RegistryAuthError."""
        challenge = self._chosen(refused, repository)
        with self._lock:
            self._challenge, self._is_plain = challenge, refused.url.startswith("http://")
            token = self._tokens.get((repository, scopes))
            if token is not None and token.header == said:
                del self._tokens[repository, scopes]
            return self._header(repository, scopes)

    def tried(self, repository: str) -> str:
        """Return in words which credentials there were."""
        tried = self._find(repository).tried
        return f"tried were {', '.join(tried)}" if tried else "there are no credentials for it"

    def error(self, what: str, status: int, repository: str) -> RegistryAuthError:
        """Return the error that says ``what`` happened, and who one was."""
        is_nobody = self._find(repository).credential is None
        why = "it may not be there, or be private" if is_nobody else "log in as another one"
        hint = f"{why}: pytest-sandbox login {self._host}"
        return RegistryAuthError(f"{what} ({self.tried(repository)})", hint=hint, status=status)

    def _find(self, repository: str) -> Found:
        if repository not in self._found:
            self._found[repository] = self._keyring.find(self._host, repository)
        return self._found[repository]

    def _chosen(self, refused: Answer, repository: str) -> Challenge:
        challenges = parse_challenges(", ".join(refused.headers.getlist("WWW-Authenticate")))
        for scheme in ("bearer", "basic"):
            for challenge in challenges:
                if challenge.scheme == scheme:
                    return challenge
        names = ", ".join(one.scheme for one in challenges) or "nothing that is known"
        raise self.error(f"{self._host} refuses, and asks for {names}", refused.status, repository)

    def _header(self, repository: str, scopes: Scopes) -> str:
        assert self._challenge is not None
        credential = self._find(repository).credential
        if self._challenge.scheme == "basic":
            if credential is None or not credential.password:
                raise self.error(f"{self._host} asks for a name and a password", 401, repository)
            return credential.basic
        if credential is not None and credential.registry_token:
            return f"Bearer {credential.registry_token}"
        token = self._tokens.get((repository, scopes))
        if token is None or token.ends < time.monotonic():
            token = self._tokens[repository, scopes] = self._fetch(self._challenge, credential, repository, scopes)
        return token.header

    # Where tokens are given out

    def _fetch(self, challenge: Challenge, credential: Credential | None, repository: str, scopes: Scopes) -> Token:
        realm = challenge.get("realm")
        self._check(realm)
        began = time.monotonic()
        with self._asked(realm, challenge.get("service"), credential, scopes) as answer:
            if answer.status in (400, 401, 403):
                what = f"{answer.host} gives no token for {self._host}: {answer.told()}"
                raise self.error(what, answer.status, repository)
            if answer.status != 200:
                raise RegistryError(f"{answer.host} gives no token: it answers {answer.status}", status=answer.status)
            try:
                data = answer.content(_MOST, "the token")
            except TROUBLE as error:
                raise unreachable(answer.host, error) from error
        return _token_in(data, began, answer.host)

    def _asked(self, realm: str, service: str, credential: Credential | None, scopes: Scopes) -> Answer:
        fields = {"service": service} if service else {}
        if credential is not None and credential.identity_token:
            more = {"grant_type": "refresh_token", "refresh_token": credential.identity_token, "client_id": AGENT}
            form = urlencode({**fields, **more, "scope": " ".join(scopes)}).encode()
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._transport.request("POST", realm, kind, body=form)
        show: Mapping[str, str] = {"Authorization": credential.basic} if credential is not None else {}
        query = urlencode([*fields.items(), *(("scope", one) for one in scopes)])
        return self._transport.request("GET", f"{realm}{'&' if urlsplit(realm).query else '?'}{query}", show)

    def _check(self, realm: str) -> None:
        """Raise RegistryError where credentials would be sent for everybody to read."""
        parts = urlsplit(realm)
        is_near = self._is_plain and parts.hostname == urlsplit(f"//{self._host}").hostname
        if parts.scheme != "https" and not (parts.scheme == "http" and (is_near or is_loopback(parts.netloc))):
            said = f"{self._host} has tokens given out at {realm!r:.200}"
            raise RegistryError(f"{said}, where anybody could listen", hint="it should begin with https://")


def _token_in(data: bytes, began: float, host: str) -> Token:
    try:
        fields = json.loads(data)
        text = fields.get("token") or fields.get("access_token")
        life = float(fields.get("expires_in") or _DEFAULT_LIFE)
    except (ValueError, TypeError, AttributeError):
        text, life = None, 0.0
    if not isinstance(text, str) or not text.isascii() or not text.isprintable():
        raise RegistryError(f"{host} was asked for a token, and sent none")
    return Token(f"Bearer {text}", began + max(life, _DEFAULT_LIFE) * _MARGIN)
