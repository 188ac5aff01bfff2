"""PYTEST_DONT_REWRITE. The registries that a process speaks to, each by one connection for all its repositories."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from pytest_sandbox_runtime.errors import RegistryUnreachableError
from pytest_sandbox_runtime.images.registry.credentials import Keyring
from pytest_sandbox_runtime.images.registry.registries_conf import rules_of
from pytest_sandbox_runtime.images.registry.repository import Repository
from pytest_sandbox_runtime.images.registry.tokens import Authorizer
from pytest_sandbox_runtime.images.registry.transport import Patience, Transport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_sandbox_runtime.images.reference import Reference
    from pytest_sandbox_runtime.images.registry.endpoints import Endpoint, Place
    from pytest_sandbox_runtime.images.registry.transport import Answer, Body

_PATIENT = Patience()


class Registries:
    """All of them, as this user's files and ``environ`` have it; to be used from several threads."""

    def __init__(
        self, environ: Mapping[str, str], patience: Patience = _PATIENT, keyring: Keyring | None = None
    ) -> None:
        self._rules = rules_of(environ)
        self._keyring = keyring or Keyring(environ)
        self._connections: dict[Endpoint, Connection] = {}
        self._lock = threading.Lock()
        self.transport = Transport(environ, patience)

    def places(self, reference: Reference) -> tuple[Repository, ...]:
        """Return where ``reference`` is pulled from, what is asked first before the others."""
        return tuple(map(self._at, self._rules.places(reference)))

    def place(self, reference: Reference) -> Repository:
        """Return where ``reference`` is pushed to."""
        return self._at(self._rules.place(reference))

    def _at(self, place: Place) -> Repository:
        with self._lock:
            if place.endpoint not in self._connections:
                self._connections[place.endpoint] = Connection(self.transport, place.endpoint, self._keyring)
            return Repository(self._connections[place.endpoint], place.repository)


class Connection:
    """One registry: how it is spoken to, and what is shown to it."""

    def __init__(self, transport: Transport, endpoint: Endpoint, keyring: Keyring) -> None:
        self.transport = transport
        self.endpoint = endpoint
        self._authorizer = Authorizer(transport, endpoint.name, keyring)
        self._scheme: str | None = None
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        *,
        repository: str = "",
        actions: tuple[str, ...] = ("pull",),
        others: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        body: Body = None,
    ) -> Answer:
        """Return what is answered to ``path``, below /v2/ or a whole URL, with what is asked for shown.

        ``others`` are repositories that are read as well. Raises RegistryError where nobody answers, and where no
        credentials are good enough.
        """
        named = [(repository, actions)] if repository else []
        named += [(one, ("pull",)) for one in others]
        scopes = tuple(f"repository:{one}:{','.join(what)}" for one, what in named)
        url = urljoin(f"{self._base()}/v2/", path)
        is_ours = urlsplit(url).netloc == self.endpoint.host
        if is_ours:
            # Who stands behind a proxy that speaks TLS may not know that, and would have us say it for all to hear.
            url = urlsplit(url)._replace(scheme=str(self._scheme)).geturl()
        said = self._authorizer.header(repository, scopes) if is_ours else None
        answer = self._send(method, url, headers, said, body, is_ours=is_ours)
        if answer.status == 401 and is_ours and urlsplit(answer.url).netloc == self.endpoint.host:
            answer.close()
            said = self._authorizer.answer(answer, said, repository, scopes)
            answer = self._send(method, url, headers, said, body, is_ours=is_ours)
        if answer.status in (401, 403):
            what = f"{self.endpoint.name}{f'/{repository}' if repository else ''} refuses: {answer.told()}"
            raise self._authorizer.error(what, answer.status, repository)
        return answer

    def _send(
        self, method: str, url: str, headers: Mapping[str, str] | None, said: str | None, body: Body, *, is_ours: bool
    ) -> Answer:
        show = {"Authorization": said} if said else {}
        if body is not None and not isinstance(body, bytes):
            body.seek(0)
        is_insecure = self.endpoint.is_insecure and is_ours
        return self.transport.request(method, url, {**(headers or {}), **show}, body=body, is_insecure=is_insecure)

    def _base(self) -> str:
        with self._lock:
            if self._scheme is None:
                first, *others = self.endpoint.schemes
                self._scheme = first if not others or self._speaks(first) else others[0]
            return f"{self._scheme}://{self.endpoint.host}"

    def _speaks(self, scheme: str) -> bool:
        """Whether the registry is spoken to by ``scheme``; who speaks TLS answers 400 to what is none, or nothing."""
        url = f"{scheme}://{self.endpoint.host}/v2/"
        try:
            answer = self.transport.once("GET", url, {}, is_insecure=self.endpoint.is_insecure)
        except RegistryUnreachableError:
            return False
        answer.close()
        return answer.status != 400
