"""The words by which a person names an image: ``host``, a path, an id or a reference. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_sandbox_runtime.specs import Image

WORDS = "host, a root file system's directory or tar, an image's archive, a Dockerfile or its folder, a name or an id"
_PATHS = ("/", "./", "../", "~")
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_DOCKERFILES = ("Dockerfile", "Containerfile")


def image_named(words: str) -> Image:
    """Return the image that is meant: by a path, where that exists or can be nothing else, or as the store knows it.

    Raises SpecError where it can be none.
    """
    from pytest_sandbox_runtime.specs import Image

    if words == "host":
        return Image.host()
    path = path_of(words)
    if path is None:
        return Image.pull(words)
    return Image.dockerfile(path) if _is_dockerfile(path) else Image.archive(path)


def path_of(words: str, directory: str = "") -> str | None:
    """Return the path, in ``directory`` if it is relative, that ``words`` are; None where they are none."""
    path = os.path.join(directory, os.path.expanduser(words))
    is_path = words in (".", "..") or words.startswith(_PATHS) or words.endswith(_TARS) or os.path.exists(path)
    return path if is_path else None


def _is_dockerfile(path: str) -> bool:
    if os.path.isdir(path):
        return any(os.path.isfile(os.path.join(path, name)) for name in _DOCKERFILES)
    name = os.path.basename(path)
    return name in _DOCKERFILES or name.startswith("Dockerfile.") or name.lower().endswith(".dockerfile")


def cache_from(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the repositories whose layers are used, as PYTEST_SANDBOX_CACHE_FROM has them, between spaces."""
    return tuple(environ.get("PYTEST_SANDBOX_CACHE_FROM", "").split())


def cache_to(environ: Mapping[str, str]) -> str | None:
    """Return the repository that layers are sent to, as PYTEST_SANDBOX_CACHE_TO has it."""
    return environ.get("PYTEST_SANDBOX_CACHE_TO") or None
