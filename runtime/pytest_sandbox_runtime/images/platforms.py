"""PYTEST_DONT_REWRITE. Platforms, ``linux/arm/v7``: this machine's, a named one, and what each can run."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Self

    from pytest_sandbox_runtime.images.documents import Document

_SYSTEMS = ("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "plan9", "aix", "android", "js")
# What uname(2) and people say, in Go's words.
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "loongarch64": ("loong64", ""),
}
_IMPLIED = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
_LESS = {"amd64": ("386", ""), "arm64": ("arm", "v8")}


@dataclass(frozen=True)
class Platform:
    """What an image is for, in Go's words: GOOS, GOARCH and its variant."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``linux/arm/v7``, ``arm64`` or ``linux``; raises ImageError where it is none of that kind."""
        parts = text.lower().split("/")
        if not all(parts) or len(parts) > 3 or not all(part.replace("_", "").isalnum() for part in parts):
            hint = "for example linux/amd64 or linux/arm/v7"
            raise ImageError(f"{text!r:.100} is no platform", hint=hint)
        if len(parts) == 1 and parts[0] in _SYSTEMS:
            return replace(cls.host(), os=parts[0])
        return cls(*(parts if len(parts) > 1 else ("linux", *parts))).normalised()

    @classmethod
    def host(cls) -> Self:
        """Return what this machine runs."""
        return cls("linux", os.uname().machine).normalised()

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read the platform of a descriptor."""
        return cls(
            document.text("os", ""),
            document.text("architecture", ""),
            document.text("variant", ""),
            document.text("os.version", ""),
            document.texts("os.features"),
        )

    def as_dict(self) -> dict[str, object]:
        """Return it as a descriptor has it."""
        fields = {"os": self.os, "architecture": self.architecture, "variant": self.variant}
        more = {"os.version": self.os_version, "os.features": list(self.os_features)}
        return {name: value for name, value in {**fields, **more}.items() if value}

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def normalised(self) -> Self:
        """Copy it in Go's words, without the variant that goes without saying."""
        system = {"macos": "darwin"}.get(self.os.lower(), self.os.lower())
        name = self.architecture.lower()
        architecture, variant = _ARCHITECTURES.get(name, (name, ""))
        variant = self.variant.lower() or variant
        variant = f"v{variant}" if variant.isdecimal() else variant
        variant = "" if variant == _IMPLIED.get(architecture) else variant
        return replace(self, os=system, architecture=architecture, variant=variant)

    def runnable(self, *, other_architectures: bool) -> Iterator[tuple[str, str, str]]:
        """Yield what a machine of this platform runs, the best first: (os, architecture, variant)."""
        here = self.normalised()
        yield here.os, here.architecture, here.variant
        implied = _IMPLIED.get(here.architecture, "")
        level = (here.variant or implied)[1:]
        lower = 5 if here.architecture == "arm" else 1
        if level.isdecimal() and here.architecture != "arm64":
            for number in range(int(level) - 1, lower - 1, -1):
                yield here.os, here.architecture, "" if f"v{number}" == implied else f"v{number}"
        if other_architectures and here.architecture in _LESS:
            yield from Platform(here.os, *_LESS[here.architecture]).runnable(other_architectures=False)


def best(wanted: Platform | None, offered: Iterable[Platform | None]) -> int | None:
    """Return which of ``offered`` to take for ``wanted``, None for this machine; None where there is none.

    This machine also runs what its 32-bit sister runs; a platform that was named is had, or a lower variant of it.
    One that says nothing of its platform is taken last.
    """
    keys = [_key(platform) for platform in offered]
    for key in (wanted or Platform.host()).runnable(other_architectures=wanted is None):
        if key in keys:
            return keys.index(key)
    return keys.index(None) if None in keys else None


def _key(platform: Platform | None) -> tuple[str, str, str] | None:
    if platform is None:
        return None
    here = platform.normalised()
    return here.os, here.architecture, here.variant
