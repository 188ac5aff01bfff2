"""PYTEST_DONT_REWRITE. What a step sees besides its root file system, and only while it runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.bases import PLACE
from pytest_sandbox_runtime.specs.checks import check_text

if TYPE_CHECKING:
    from pytest_sandbox_runtime.specs.context import Context
    from pytest_sandbox_runtime.specs.image import Image

SHARING = ("shared", "private", "locked")


def _check_target(target: str, what: str) -> None:
    check_text(target, f"the target of {what}")
    if os.path.normpath(os.path.join("/", target)).strip("/") == "":
        raise SpecError(f"the target {target!r} of {what} is the whole root", hint="name a path below /")


def _check_ids(mount: CacheMount | SecretMount) -> None:
    for name in ("mode", "uid", "gid"):
        value = getattr(mount, name)
        if not isinstance(value, int) or not 0 <= value < (0o10000 if name == "mode" else 1 << 32):
            raise SpecError(f"{name}={value!r} of the mount on {mount.target} cannot be")


@dataclass(frozen=True, kw_only=True)
class CacheMount:
    """A directory that is kept between builds and is in no layer; it starts as ``source`` of ``from_``, or empty."""

    target: str
    id: str | None = None
    sharing: str = "shared"
    from_: Image | None = None
    source: str = ""
    read_only: bool = False
    mode: int = 0o755
    uid: int = 0
    gid: int = 0

    def __post_init__(self) -> None:
        _check_target(self.target, "a cache mount")
        _check_ids(self)
        if self.sharing not in SHARING:
            raise SpecError(f"sharing={self.sharing!r} is none of {', '.join(SHARING)}")

    @property
    def cache_id(self) -> str:
        """What names the cache: mounts of one id share their content."""
        return self.id or os.path.normpath(self.target)


@dataclass(frozen=True, kw_only=True)
class BindMount:
    """``source`` of the build context or of another image; what is written there is lost after the step."""

    target: str
    source: str = ""
    context: Context | None = None
    from_: Image | None = None
    read_only: bool = True

    def __post_init__(self) -> None:
        _check_target(self.target, "a bind mount")
        if (self.context is None) == (self.from_ is None):
            raise SpecError(f"the mount on {self.target} needs one of context and from_")


@dataclass(frozen=True, kw_only=True)
class TmpfsMount:
    """An empty directory in memory, at most ``size`` bytes where it says so."""

    target: str
    size: int | None = None

    def __post_init__(self) -> None:
        _check_target(self.target, "a tmpfs mount")


@dataclass(frozen=True, kw_only=True)
class SecretMount:
    """The content of the host's file ``source``, as the file ``target``, the variable ``env``, or both.

    Without a source there is nothing to see, which is an error where it is ``required``.
    """

    id: str
    source: str | None = field(default=None, metadata=PLACE)
    target: str | None = None
    env: str | None = None
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0

    def __post_init__(self) -> None:
        check_text(self.id, "the secret")
        if self.source is not None:
            check_text(self.source, f"the file of the secret {self.id}")
            object.__setattr__(self, "source", os.path.abspath(self.source))
        if self.target is None and self.env is None:
            object.__setattr__(self, "target", f"/run/secrets/{os.path.basename(self.id)}")
        if self.target is not None:
            _check_target(self.target, f"the secret {self.id}")
        if self.env is not None:
            check_text(self.env, f"the variable of the secret {self.id}")
        _check_ids(self)


@dataclass(frozen=True, kw_only=True)
class FileMount:
    """A file with the content that is written here: a script, for example."""

    target: str
    content: bytes
    mode: int = 0o755

    def __post_init__(self) -> None:
        _check_target(self.target, "a file")


RunMount = Union[CacheMount, BindMount, TmpfsMount, SecretMount, FileMount]  # noqa: UP007  evaluated, on 3.10 too
RUN_MOUNTS = (CacheMount, BindMount, TmpfsMount, SecretMount, FileMount)
