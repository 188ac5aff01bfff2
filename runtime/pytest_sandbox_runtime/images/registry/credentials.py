"""PYTEST_DONT_REWRITE. Who one is for a registry: what Docker's and podman's files, and their helpers, know.

Secrets are in no repr, no message and no error; where they come from is.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_sandbox_runtime.errors import RegistryError
from pytest_sandbox_runtime.images.reference import DEFAULT_DOMAIN
from pytest_sandbox_runtime.images.registry.credential_helpers import ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What Docker calls its own registry where it keeps credentials.
HUB_KEY = "https://index.docker.io/v1/"
_VERSION = re.compile(r"(/v[12])?/*$")
_HUB_KEYS = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class Credential:
    """A name and a password; or a token, which takes the place of both. ``source`` is where it comes from."""

    source: str
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """What HTTP's header Authorization says."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def __str__(self) -> str:
        return f"{self.username or 'a token'} of {self.source}"


class Found(NamedTuple):
    """What there is for a registry, and in which words to say what was tried."""

    credential: Credential | None
    tried: tuple[str, ...]


@dataclass(frozen=True)
class AuthFile:
    """A file of credentials, or with ``text`` what a variable says; ``source`` is what errors call it."""

    source: str
    text: str | None = field(default=None, repr=False)

    def fields(self) -> dict[str, Any]:
        """Return what it says, nothing where it is not there; raises RegistryError where it cannot be read."""
        try:
            text = self.text if self.text is not None else _read(self.source)
            said = json.loads(text or "{}")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RegistryError(f"credentials cannot be read from {self.source}: {error.strerror}") from error
        except ValueError:
            # Not from the cause, which has the text.
            raise self._damaged("it is no JSON") from None
        if not isinstance(said, dict) or not all(
            isinstance(said.get(one, {}), dict) for one in ("auths", "credHelpers")
        ):
            raise self._damaged("it is no file of credentials")
        return said

    def _damaged(self, why: str) -> RegistryError:
        return RegistryError(
            f"credentials cannot be read from {self.source}: {why}", hint="pytest-sandbox login writes one"
        )

    def find(self, host: str, repository: str) -> Found:
        """Return what is there for the repository, what is more special before the rest."""
        try:
            fields = self.fields()
        except RegistryError as error:
            if isinstance(error.__cause__, PermissionError):
                return Found(None, (f"{self.source}, which cannot be read",))
            raise
        tried = []
        for name in filter(None, (fields.get("credHelpers", {}).get(host), fields.get("credsStore"))):
            said = ask(str(name), HUB_KEY if host == DEFAULT_DOMAIN else host)
            source = f"docker-credential-{name} ({self.source})"
            if said.secret:
                # The protocol's way to say that there is no name.
                is_token = said.username == "<token>"
                secret = {"identity_token": said.secret} if is_token else {"password": said.secret}
                return Found(Credential(source, "" if is_token else said.username, **secret), ())
            tried += [f"{source}, {said.trouble}"] if said.trouble else []
        auths = {registry_of(key): value for key, value in fields.get("auths", {}).items()}
        for key in _keys(host, repository):
            credential = self._credential(key, auths.get(key))
            if credential is not None:
                return Found(credential, ())
        return Found(None, tuple(tried))

    def _credential(self, key: str, entry: object) -> Credential | None:
        if not isinstance(entry, dict):
            return None
        name, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if entry.get("auth"):
            try:
                pair = base64.b64decode(str(entry["auth"]), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                raise self._damaged(f"auth of {key} is no base64 of a name and a password") from None
            name, _, password = pair.rstrip("\0").partition(":")
        identity, registry = str(entry.get("identitytoken") or ""), str(entry.get("registrytoken") or "")
        if not (password or identity or registry):
            return None
        return Credential(self.source, name, password, identity, registry)


class Keyring:
    """The credentials of this process's user."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def find(self, host: str, repository: str = "") -> Found:
        """Return what the first file that knows the repository's registry says; raises RegistryError."""
        tried: tuple[str, ...] = ()
        for file in files_of(self._environ):
            found = file.find(host, repository)
            tried += found.tried
            if found.credential is not None:
                return Found(found.credential, (*tried, str(found.credential)))
        return Found(None, tried)


class OneKey(Keyring):
    """A credential that is tried, for whatever registry."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    def find(self, host: str, repository: str = "") -> Found:  # noqa: ARG002
        """Return it."""
        return Found(self._credential, (str(self._credential),))


def files_of(environ: Mapping[str, str]) -> Iterator[AuthFile]:
    """Yield where credentials may be: what was named, then podman's files, then Docker's."""
    home = environ.get("HOME") or os.path.expanduser("~")
    if environ.get("DOCKER_AUTH_CONFIG"):
        yield AuthFile("DOCKER_AUTH_CONFIG", environ["DOCKER_AUTH_CONFIG"])
    if environ.get("REGISTRY_AUTH_FILE"):
        yield AuthFile(environ["REGISTRY_AUTH_FILE"])
    if environ.get("DOCKER_CONFIG"):
        yield AuthFile(os.path.join(environ["DOCKER_CONFIG"], "config.json"))
    runtime = environ.get("XDG_RUNTIME_DIR")
    yield AuthFile(f"{runtime}/containers/auth.json" if runtime else f"/run/containers/{os.getuid()}/auth.json")
    yield AuthFile(os.path.join(environ.get("XDG_CONFIG_HOME") or f"{home}/.config", "containers/auth.json"))
    if not environ.get("DOCKER_CONFIG"):
        yield AuthFile(f"{home}/.docker/config.json")


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def registry_of(key: str) -> str:
    """Return the registry, and with podman the part of it, that ``key`` of ``auths`` is about."""
    plain = _VERSION.sub("", key.partition("://")[2] or key)
    host, slash, rest = plain.partition("/")
    return (DEFAULT_DOMAIN if host in _HUB_KEYS else host) + slash + rest


def _keys(host: str, repository: str) -> Iterator[str]:
    name = f"{host}/{repository}" if repository else host
    while name:
        yield name
        name = name.rpartition("/")[0]
