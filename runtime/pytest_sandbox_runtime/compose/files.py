"""PYTEST_DONT_REWRITE. Which files a project is made of, its directory, its variables and its name."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.dotenv import read_variables
from pytest_sandbox_runtime.compose.reading import UnreadableError
from pytest_sandbox_runtime.errors import ComposeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def directory_of(paths: Sequence[str]) -> str:
    """Return the directory of the project, where the first of ``paths`` is; raises ComposeError without any."""
    if not paths:
        raise ComposeError("there is no compose file to read", hint="name a file, or the directory of one")
    first = os.path.abspath(paths[0])
    return first if os.path.isdir(first) else os.path.dirname(first)


def variables_of(directory: str, env_file: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that files may use: ``environ`` over those of ``env_file``, or of a ``.env``."""
    path = env_file or os.path.join(directory, ".env")
    if env_file is None and not os.path.isfile(path):
        return dict(environ)
    try:
        return {**read_variables(path, environ), **environ}
    except UnreadableError as error:
        raise ComposeError(f"cannot be read: {error}", path=path) from error


def files_of(paths: Sequence[str], variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files that ``paths`` stand for: a directory for what Compose looks for in one."""
    found: list[str] = []
    for path in paths:
        found += _files_in(path, variables) if os.path.isdir(path) else [path]
    return tuple(map(os.path.normpath, found))


def _files_in(directory: str, variables: Mapping[str, str]) -> list[str]:
    if said := variables.get("COMPOSE_FILE"):
        separator = variables.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        return [os.path.join(directory, name) for name in said.split(separator) if name]
    first, override = _first_of(_NAMES, directory), _first_of(_OVERRIDES, directory)
    if first is None:
        raise ComposeError(
            "there is no compose file in this directory", path=directory, hint=f"Compose looks for {', '.join(_NAMES)}"
        )
    return [first, override] if override else [first]


def _first_of(names: Sequence[str], directory: str) -> str | None:
    paths = [os.path.join(directory, name) for name in names]
    return next((path for path in paths if os.path.isfile(path)), None)


def checked_name(name: str) -> str:
    """Return ``name``; raises ComposeError where it is no name of a project."""
    if not _PROJECT_NAME.fullmatch(name):
        hint = "small letters, digits, - and _, with a letter or a digit first"
        raise ComposeError(f"{name!r} is no name of a project", hint=hint)
    return name


def normal_name(name: str) -> str:
    """Return what of ``name`` may be in a project's name."""
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-")
