"""PYTEST_DONT_REWRITE. What podman and skopeo are told of registries: containers-registries.conf(5), version 2."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import RegistryError
from pytest_sandbox_runtime.images.registry.endpoints import Mirror, Rule, Rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM = "/etc/containers"
_NAME = "registries.conf"
_KINDS = {"all": ("tag", "digest"), "digest-only": ("digest",), "tag-only": ("tag",)}


def rules_of(environ: Mapping[str, str], system: str = SYSTEM) -> Rules:
    """Return what this user's files say, and TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX; raises RegistryError."""
    found: dict[str, Rule] = {}
    for path in _files(environ, system):
        found.update({rule.prefix: rule for rule in _rules_in(path)})
    return Rules(tuple(found.values()), environ.get("TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX", ""))


def _files(environ: Mapping[str, str], system: str) -> Iterator[str]:
    """Yield the files that there are; what a later one says of a prefix counts."""
    named = environ.get("CONTAINERS_REGISTRIES_CONF") or environ.get("REGISTRIES_CONFIG_PATH")
    own = os.path.join(
        environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config"), "containers"
    )
    main = [named] if named else [os.path.join(own, _NAME), os.path.join(system, _NAME)]
    yield from [path for path in main if os.path.isfile(path)][:1]
    for directory in () if named else (os.path.join(system, f"{_NAME}.d"), os.path.join(own, f"{_NAME}.d")):
        if os.path.isdir(directory):
            yield from (
                os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.endswith(".conf")
            )


def _rules_in(path: str) -> Iterator[Rule]:
    try:
        with open(path, "rb") as file:
            data = file.read()
        # Most have nothing but comments and short names in them.
        said = _toml().loads(data.decode()) if b"[[registry]]" in data else {}
        for registry in said.get("registry", ()):
            location = registry.get("location", "")
            yield Rule(
                (registry.get("prefix") or location).rstrip("/"),
                location.rstrip("/"),
                registry.get("insecure", False),
                registry.get("blocked", False),
                tuple(_mirror(one, registry) for one in registry.get("mirror", ())),
            )
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        hint = "man containers-registries.conf says how it is written"
        raise RegistryError(f"{path} cannot be read: {error}", hint=hint) from error


def _mirror(mirror: dict[str, Any], registry: dict[str, Any]) -> Mirror:
    only_digests = "digest-only" if registry.get("mirror-by-digest-only") else "all"
    kinds = _KINDS[mirror.get("pull-from-mirror") or only_digests]
    return Mirror(mirror["location"].rstrip("/"), mirror.get("insecure", False), kinds)


def _toml() -> Any:
    try:
        return importlib.import_module("tomllib")
    except ImportError:  # Python 3.10, where pytest brings it
        return importlib.import_module("tomli")
