"""PYTEST_DONT_REWRITE. ``include``: another compose file with a directory and variables of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.dotenv import read_variables
from pytest_sandbox_runtime.compose.reading import UnreadableError

if TYPE_CHECKING:
    from pytest_sandbox_runtime.compose.documents import Documents
    from pytest_sandbox_runtime.compose.nodes import Node

_REMOTE = ("https://", "http://", "git@", "ssh://", "oci://", "github.com/", "git://")


def included(entry: Node, documents: Documents, within: tuple[str, ...]) -> Node:
    """Return what ``entry`` of a file's ``include`` names; ``within`` are the files that led there."""
    path = entry.get("path") or entry
    if isinstance(path.value, dict):
        raise entry.error("lacks path")
    files = path.items or (path,)
    for file in files:
        if str(file.value).startswith(_REMOTE):
            raise file.error(f"{file.value} is not on this machine", "fetch it, and include the file")
    paths = [_shown(entry.place.resolve(str(file.value)), entry) for file in files]
    if paths[0] in within:
        chain = (*within[within.index(paths[0]) :], paths[0])
        raise entry.error(f"files include each other: {' -> '.join(chain)}")
    said = entry.get("project_directory")
    directory = entry.place.resolve(str(said.value)) if said else os.path.dirname(os.path.abspath(paths[0]))
    variables = _variables(entry, directory)
    return documents.model(paths, directory, variables, asked_by=entry.place, within=within)


def _variables(entry: Node, directory: str) -> dict[str, str]:
    ours = entry.place.source.variables
    theirs: dict[str, str] = {}
    said = entry.get("env_file")
    beside = os.path.join(directory, ".env")
    if said is None and os.path.isfile(beside):
        said = entry.having(beside)
    for file in (said.items or (said,)) if said else ():
        path = file.place.resolve(str(file.value))
        if path == os.devnull:
            continue
        try:
            theirs |= read_variables(path, {**theirs, **ours})
        except UnreadableError as error:
            raise file.error(f"{path} cannot be read: {error}") from error
    return {**theirs, **ours}


def _shown(path: str, entry: Node) -> str:
    return path if os.path.isabs(entry.place.source.path) else os.path.relpath(path)
