"""PYTEST_DONT_REWRITE. References, as Docker reads them: ``debian``, ``ghcr.io/a/b:1@sha256:...``, ``[::1]:5000/x``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.digest import is_any_digest

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_PATH = 255

# The grammar of github.com/distribution/reference, whose classes are ASCII only.
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])"
_DOMAIN = rf"{_HOST}(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = rf"{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_ALGORITHM = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
_REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_PATH})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_ALGORITHM}:[0-9a-fA-F]{{32,}}))?"
)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True)
class Reference:
    """The name of an image: a repository, and which of its images, by ``tag``, by ``digest``, by both or by neither."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a person writes; raises ImageError where it is no reference."""
        if _IDENTIFIER.fullmatch(text):
            raise _error(text, "64 hexadecimal digits are an identifier and no name")
        domain, remainder = _split_domain(text)
        path = remainder.partition(":")[0]
        if path.lower() != path:
            raise _error(text, "the repository's name must be lower-case")
        match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
        if match is None:
            raise _error(text, "it is not [DOMAIN[:PORT]/]NAME[:TAG][@DIGEST]")
        return cls._checked(text, match)

    @classmethod
    def _checked(cls, text: str, match: re.Match[str]) -> Self:
        if len(match["path"]) > _MAX_PATH:
            raise _error(text, f"the repository's name has more than {_MAX_PATH} characters")
        if match["digest"] and not is_any_digest(match["digest"]):
            raise _error(text, f"{match['digest']} is no digest")
        return cls(**match.groupdict())

    def __str__(self) -> str:
        return self.canonical

    @property
    def canonical(self) -> str:
        """All of it: ``docker.io/library/debian:12``."""
        return f"{self.domain}/{self.path}{self._suffix()}"

    @property
    def familiar(self) -> str:
        """As people write it, without what Docker adds: ``debian:12``."""
        return self.familiar_name + self._suffix()

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: ``debian``, ``ghcr.io/a/b``."""
        if self.domain != DEFAULT_DOMAIN:
            return f"{self.domain}/{self.path}"
        short = self.path.removeprefix(_OFFICIAL)
        return short if "/" not in short else self.path

    def with_default_tag(self) -> Self:
        """Copy it with the tag ``latest`` where it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_digest(self, digest: str) -> Self:
        """Copy it with ``digest``."""
        return replace(self, digest=digest)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, _OFFICIAL + text
    # A user's name on Docker Hub has no dots, no colon and no capitals.
    if first != "localhost" and "." not in first and ":" not in first and first.lower() == first:
        return DEFAULT_DOMAIN, text
    if first not in (DEFAULT_DOMAIN, _LEGACY_DOMAIN):
        return first, rest
    return DEFAULT_DOMAIN, rest if "/" in rest else _OFFICIAL + rest


def _error(text: str, why: str) -> ImageError:
    hint = "for example debian:12, ghcr.io/owner/name:tag or localhost:5000/name"
    return ImageError(f"{text!r:.300} is no reference of an image: {why}", hint=hint)
