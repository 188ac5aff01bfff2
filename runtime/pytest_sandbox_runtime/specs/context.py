"""PYTEST_DONT_REWRITE. The directory that files are copied from, and which file says what of it is ignored."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.bases import PLACE

if TYPE_CHECKING:
    from collections.abc import Iterable

_WILD = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class Context:
    """A build context. The first of ``ignore_files`` that exists has the patterns of what is not in it."""

    directory: str = field(metadata=PLACE)
    ignore_files: tuple[str, ...] = field(default=(), metadata=PLACE)

    def __post_init__(self) -> None:
        if not os.path.isabs(self.directory):
            raise SpecError(f"the context {self.directory!r} is no absolute path")

    @classmethod
    def of(cls, directory: str) -> Context:
        """Return the context ``directory`` with its own .dockerignore."""
        return cls(directory=directory, ignore_files=(os.path.join(directory, ".dockerignore"),))


def context_of(
    sources: Iterable[str | os.PathLike[str]], directory: str | os.PathLike[str] | None
) -> tuple[Context, tuple[str, ...]]:
    """Return the context of ``sources``, and them relative to it.

    It is ``directory``; without one the current directory, or, where a source is not below that, the nearest
    directory that has all of them.
    """
    start = os.path.abspath(directory or os.curdir)
    paths = [os.path.join(start, os.fspath(source)) for source in sources]
    cleaned = [os.path.normpath(path) for path in paths]
    within = [os.path.commonpath((path, start)) == start for path in cleaned]
    if not all(within):
        if directory is not None:
            outside = paths[within.index(False)]
            raise SpecError(f"{outside} is not in the context {start}", hint="name a context that has it")
        start = os.path.commonpath([_fixed_part(path) for path in cleaned])
    return Context.of(start), tuple(os.path.relpath(path, start) for path in cleaned)


def rooted(sources: Iterable[str]) -> tuple[str, ...]:
    """Return ``sources``, which are in an image, as absolute paths."""
    return tuple(posixpath.normpath(f"/{source.lstrip('/')}") for source in sources)


def _fixed_part(path: str) -> str:
    # What a pattern may match is below its last directory without a wild card.
    parts = path.split("/")
    wild = next((index for index, part in enumerate(parts) if _WILD & set(part)), len(parts) - 1)
    return "/".join(parts[:wild]) or "/"
