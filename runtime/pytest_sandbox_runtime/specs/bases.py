"""PYTEST_DONT_REWRITE. What an image starts as, before its layers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, Union

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.checks import check_packages, check_text
from pytest_sandbox_runtime.specs.image import Host, Image

# What differs from machine to machine and says nothing of what is there: the builder adds the content's digest.
PLACE = {"key": False}


@dataclass(frozen=True)
class Scratch:
    """Nothing: no file at all."""

    kind: ClassVar[str] = "scratch"


@dataclass(frozen=True)
class Pull:
    """An image of a registry, by its reference; for this machine's platform, or for one such as "linux/arm64"."""

    kind: ClassVar[str] = "pull"
    reference: str
    platform: str | None = None

    def __post_init__(self) -> None:
        for text in (self.reference, self.platform or "linux"):
            if not isinstance(text, str) or not text or any(c.isspace() or not c.isprintable() for c in text):
                msg = f"{text!r} names no image" if text is self.reference else f"{text!r} is no platform"
                raise SpecError(msg, hint='for example Image.pull("debian:12", platform="linux/arm64")')


@dataclass(frozen=True)
class Archive:
    """The root file system or image in a directory or an archive."""

    kind: ClassVar[str] = "archive"
    path: str = field(metadata=PLACE)

    def __post_init__(self) -> None:
        check_text(self.path, "the archive")
        object.__setattr__(self, "path", os.path.abspath(self.path))


@dataclass(frozen=True)
class Dockerfile:
    """What a Dockerfile says, once it is read: ``path`` is the file, or the folder that holds it.

    ``context`` is the folder that it copies from; None is the one that holds it. ``secrets`` are files of the host by
    the id that ``RUN --mount=type=secret`` has.
    """

    kind: ClassVar[str] = "dockerfile"
    path: str = field(metadata=PLACE)
    target: str | None = None
    args: tuple[tuple[str, str], ...] = ()
    contexts: tuple[tuple[str, Image], ...] = ()
    context: str | None = field(default=None, metadata=PLACE)
    secrets: tuple[tuple[str, str], ...] = field(default=(), metadata=PLACE)

    def __post_init__(self) -> None:
        check_text(self.path, "the Dockerfile")
        object.__setattr__(self, "path", os.path.abspath(self.path))
        if self.target is not None:
            check_text(self.target, "the target")
        if self.context is not None:
            check_text(self.context, "the context")
            object.__setattr__(self, "context", os.path.abspath(self.context))
        for name, value in self.args:
            check_text(name, "args has")
            check_text(value, f"args has {name}=", empty=True)
        for name, image in self.contexts:
            check_text(name, "contexts has")
            _check_image(image, f"contexts has {name}=")
        for name, file in self.secrets:
            check_text(name, "secrets has")
            check_text(file, f"secrets has {name}=")
        object.__setattr__(self, "secrets", tuple((name, os.path.abspath(file)) for name, file in self.secrets))


@dataclass(frozen=True)
class Debian:
    """A minimal Debian or Ubuntu by mmdebstrap(1), of today or of a day at snapshot.debian.org."""

    kind: ClassVar[str] = "debian"
    suite: str
    packages: tuple[str, ...] = ()
    snapshot: str | None = None

    def __post_init__(self) -> None:
        check_packages((self.suite,), "the suite")
        check_packages(self.packages, "packages")
        if self.snapshot is not None:
            digits = self.snapshot.rstrip("Z").replace("T", "") if isinstance(self.snapshot, str) else ""
            if not digits.isdigit() or len(digits) not in (8, 14):
                msg = f"snapshot={self.snapshot!r} is no time of snapshot.debian.org"
                raise SpecError(msg, hint='for example "20260101T000000Z"')


@dataclass(frozen=True)
class Unpacked:
    """What an engine has made of an image: the directories of its layers, the topmost first.

    With ``on_disk`` what a sandbox writes is held there, though nobody asked for it to be kept.
    """

    kind: ClassVar[str] = "unpacked"
    roots: tuple[str, ...]
    label: str
    on_disk: bool = False


Base = Union[Host, Scratch, Pull, Archive, Dockerfile, Debian, Unpacked]  # noqa: UP007  evaluated, on 3.10 too
BASES = (Host, Scratch, Pull, Archive, Dockerfile, Debian, Unpacked)


def _check_image(image: Any, what: str) -> None:
    if not isinstance(image, Image):
        raise SpecError(f"{what}{image!r}, which is no Image", hint='for example Image.pull("debian:12")')
