"""PYTEST_DONT_REWRITE. Where images are asked for: which hosts, by which scheme, under which name."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import RegistryError
from pytest_sandbox_runtime.images.reference import DEFAULT_DOMAIN, Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

HUB = "registry-1.docker.io"
_HUB_NAMES = (DEFAULT_DOMAIN, "index.docker.io", HUB)


@dataclass(frozen=True)
class Endpoint:
    """A registry's ``host``, with its port where it has one; an insecure one is believed without a certificate."""

    host: str
    is_insecure: bool = False

    @property
    def schemes(self) -> tuple[str, ...]:
        """By what it may be spoken to, what is tried first before the other."""
        if self.is_insecure:
            return ("https", "http")
        return ("http", "https") if is_loopback(self.host) else ("https",)

    @property
    def name(self) -> str:
        """What people call it."""
        return DEFAULT_DOMAIN if self.host in _HUB_NAMES else self.host


@dataclass(frozen=True)
class Place:
    """A repository at an endpoint."""

    endpoint: Endpoint
    repository: str

    def __str__(self) -> str:
        return f"{self.endpoint.name}/{self.repository}"

    @classmethod
    def at(cls, location: str, *, is_insecure: bool = False) -> Place:
        """Return what ``location``, a host and a path, says."""
        host, _, repository = location.partition("/")
        return cls(Endpoint(HUB if host in _HUB_NAMES else host, is_insecure), repository)


@dataclass(frozen=True)
class Mirror:
    """Somewhere else where the same images are; ``kinds`` of references it is asked for: tag, digest."""

    location: str
    is_insecure: bool = False
    kinds: tuple[str, ...] = ("tag", "digest")


@dataclass(frozen=True)
class Rule:
    """What is said of all repositories below ``prefix``: ``*.host`` or a host, and any part of a path behind it."""

    prefix: str
    location: str = ""
    is_insecure: bool = False
    is_blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()

    def matches(self, name: str) -> bool:
        """Whether it is about the repository ``name``."""
        return name == self.matched(name) or name.startswith(f"{self.matched(name)}/")

    def matched(self, name: str) -> str:
        """Return the begin of ``name`` that is rewritten: what stands for an asterisk is known from it alone."""
        if not self.prefix.startswith("*."):
            return self.prefix
        host = name.partition("/")[0]
        return host if host.partition(":")[0].endswith(self.prefix[1:]) else self.prefix


@dataclass(frozen=True)
class Rules:
    """All that is said; ``hub_prefix`` comes before the names of Docker Hub's images, as Testcontainers has it."""

    rules: tuple[Rule, ...] = ()
    hub_prefix: str = ""

    def places(self, reference: Reference) -> tuple[Place, ...]:
        """Return where ``reference`` is pulled from, what is asked first before the others; raises RegistryError."""
        if self.hub_prefix and reference.domain == DEFAULT_DOMAIN:
            reference = Reference.parse(f"{self.hub_prefix.strip('/')}/{reference.familiar_name}")
        return tuple(self._places(reference))

    def place(self, reference: Reference) -> Place:
        """Return where ``reference`` is pushed to: the registry itself, and no mirror."""
        return tuple(self._places(reference))[-1]

    def _places(self, reference: Reference) -> Iterator[Place]:
        name = f"{reference.domain}/{reference.path}"
        rule = self._rule(name)
        if rule.is_blocked:
            hint = "registries.conf has it blocked"
            raise RegistryError(f"{name} is not to be spoken to", hint=hint)
        matched = rule.matched(name)
        kind = "digest" if reference.digest else "tag"
        for mirror in rule.mirrors:
            if kind in mirror.kinds:
                yield Place.at(mirror.location + name[len(matched) :], is_insecure=mirror.is_insecure)
        yield Place.at((rule.location or matched) + name[len(matched) :], is_insecure=rule.is_insecure)

    def _rule(self, name: str) -> Rule:
        matching = [rule for rule in self.rules if rule.matches(name)]
        return max(matching, key=lambda rule: len(rule.prefix), default=Rule(name.partition("/")[0]))


def is_loopback(host: str) -> bool:
    """Whether ``host``, with or without a port, is this machine and nothing else."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
