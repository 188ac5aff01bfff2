"""PYTEST_DONT_REWRITE. Credentials that are written down, and forgotten: in the file that Docker reads, too."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import ImageError, RegistryError
from pytest_sandbox_runtime.images.reference import DEFAULT_DOMAIN, Reference
from pytest_sandbox_runtime.images.registry import credential_helpers
from pytest_sandbox_runtime.images.registry.credentials import HUB_KEY, AuthFile, Credential, OneKey, registry_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def log_in(environ: Mapping[str, str], registry: str, username: str, password: str) -> str:
    """Write the credential down if the registry takes it, and return where; raises RegistryError."""
    from pytest_sandbox_runtime.images.registry.client import Registries

    host = host_of(registry)
    keyring = OneKey(Credential("this login", username, password))
    repository = Registries(environ, keyring=keyring).place(Reference(host, "any"))
    with repository.connection.request("GET", "") as answer:
        repository.check(answer, "say who may log in")
    return remember(environ, host, username, password)


def log_out(environ: Mapping[str, str], registry: str) -> str | None:
    """Forget the credential, and return where it was; None where there was none."""
    return forget(environ, host_of(registry))


def host_of(registry: str) -> str:
    """Return the registry that is meant, without what comes before and behind; raises RegistryError."""
    host = registry_of(registry)
    try:
        if Reference.parse(f"{host}/any").domain == host:
            return host
    except ImageError:
        pass
    raise RegistryError(f"{registry!r:.200} is no registry", hint="for example ghcr.io, or localhost:5000")


def remember(environ: Mapping[str, str], host: str, username: str, password: str) -> str:
    """Write the credential where this user has them, and return where that is; raises RegistryError."""
    file = _file(environ)
    fields = file.fields()
    helper = _helper(fields, host)
    if helper:
        credential_helpers.store(helper, _key(host), username, password)
        return f"docker-credential-{helper}"
    pair = base64.b64encode(f"{username}:{password}".encode()).decode()
    _write(file.source, {**fields, "auths": {**_others(fields, host), _key(host): {"auth": pair}}})
    return file.source


def forget(environ: Mapping[str, str], host: str) -> str | None:
    """Remove what is known of the registry, and return from where; None where nothing was."""
    file = _file(environ)
    fields = file.fields()
    helper = _helper(fields, host)
    if helper:
        credential_helpers.erase(helper, _key(host))
    others = _others(fields, host)
    if others != fields.get("auths", {}):
        _write(file.source, {**fields, "auths": others})
        return file.source
    return f"docker-credential-{helper}" if helper else None


def _file(environ: Mapping[str, str]) -> AuthFile:
    home = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".docker")
    return AuthFile(environ.get("REGISTRY_AUTH_FILE") or os.path.join(home, "config.json"))


def _key(host: str) -> str:
    return HUB_KEY if host == DEFAULT_DOMAIN else host


def _helper(fields: dict[str, Any], host: str) -> str:
    return str(fields.get("credHelpers", {}).get(host) or fields.get("credsStore") or "")


def _others(fields: dict[str, Any], host: str) -> dict[str, Any]:
    return {key: value for key, value in fields.get("auths", {}).items() if registry_of(key) != host}


def _write(path: str, fields: dict[str, Any]) -> None:
    """Replace the file, which nobody else may read, as a whole: also through a link, as those of dotfiles are."""
    path = os.path.realpath(path)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd, partial = tempfile.mkstemp(prefix=".config-", dir=os.path.dirname(path))  # made with mode 0600
        try:
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(fields, file, indent="\t")
                file.flush()
                os.fsync(fd)
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise
    except OSError as error:
        raise RegistryError(f"credentials cannot be written to {path}: {error.strerror}") from error
