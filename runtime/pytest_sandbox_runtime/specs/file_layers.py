"""PYTEST_DONT_REWRITE. Layers that change an image's files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.checks import (
    check_absolute,
    check_command,
    check_mode,
    check_owner,
    check_text,
    environment,
)
from pytest_sandbox_runtime.specs.run_mounts import RUN_MOUNTS

if TYPE_CHECKING:
    from pytest_sandbox_runtime.specs.context import Context
    from pytest_sandbox_runtime.specs.image import Image
    from pytest_sandbox_runtime.specs.run_mounts import RunMount

NETWORKS = ("none", "host")
# The way to the network, as Docker passes it on: where a step's files come from is nothing that changes them.
PROXIES = tuple(
    name for word in ("HTTP", "HTTPS", "FTP", "NO", "ALL") for name in (f"{word}_PROXY", f"{word}_PROXY".lower())
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A command that changes the image's files; a string is a line for the shell in force.

    ``env`` is for this step only and goes over the image's own.
    """

    command: str | tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(default=(), metadata={"key_without": PROXIES})
    network: str = "none"
    mounts: tuple[RunMount, ...] = ()

    def __post_init__(self) -> None:
        check_command(self.command, "the step")
        object.__setattr__(self, "env", tuple(sorted(environment(self.env))))
        if self.network not in NETWORKS:
            raise SpecError(f"network={self.network!r} is none of {', '.join(NETWORKS)}")
        for mount in self.mounts:
            if not isinstance(mount, RUN_MOUNTS):
                raise SpecError(f"mounts has {mount!r}, which no step can have")


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Files, trees and patterns of a context, or of another image, and files whose content stands here.

    As in Docker: of a directory it is the content that is copied; a target that ends with / is a directory, and has to
    be one where more than one file is copied.
    ``unpack`` has archives unpacked instead of copied. ``inline`` has names and contents.
    """

    sources: tuple[str, ...] = ()
    target: str
    context: Context | None = None
    from_: Image | None = None
    inline: tuple[tuple[str, bytes], ...] = ()
    chmod: str | None = None
    chown: str | None = None
    exclude: tuple[str, ...] = ()
    unpack: bool = False
    link: bool = False

    def __post_init__(self) -> None:
        check_text(self.target, "the target")
        if not self.sources and not self.inline:
            raise SpecError(f"nothing to copy to {self.target}", hint="name a source before the target")
        for text in (*self.sources, *self.exclude):
            check_text(text, "copy has")
        if self.sources and (self.context is None) == (self.from_ is None):
            raise SpecError(f"copying to {self.target} needs one of context and from_")
        check_mode(self.chmod)
        check_owner(self.chown)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file with the content that is written here, its missing parent directories made."""

    path: str
    content: bytes
    chmod: str | None = None
    chown: str | None = None

    def __post_init__(self) -> None:
        check_absolute(self.path, "the file")
        if self.path.endswith("/"):
            raise SpecError(f"the file {self.path!r} is a directory", hint="give the file a name")
        if not isinstance(self.content, bytes):
            raise SpecError(f"the content of {self.path} is {type(self.content).__name__}, neither str nor bytes")
        check_mode(self.chmod)
        check_owner(self.chown)


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file from an http(s) address, as it is; with a ``checksum``, "sha256:...", it is known to be the same."""

    url: str
    target: str
    checksum: str | None = None
    chmod: str | None = None
    chown: str | None = None
    unpack: bool = False

    def __post_init__(self) -> None:
        check_text(self.target, "the target")
        if not self.url.startswith(("http://", "https://")):
            raise SpecError(f"{self.url!r} is no http or https address")
        if self.checksum is not None:
            algorithm, _, digest = self.checksum.partition(":")
            lengths = {"sha256": 64, "sha384": 96, "sha512": 128}
            if len(digest) != lengths.get(algorithm) or set(digest) - set("0123456789abcdef"):
                raise SpecError(f"{self.checksum!r} is no checksum", hint="sha256: and 64 hexadecimal digits")
        check_mode(self.chmod)
        check_owner(self.chown)
