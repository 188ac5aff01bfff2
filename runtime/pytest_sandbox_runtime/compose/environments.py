"""PYTEST_DONT_REWRITE. A service's variables and labels, with those of the files that it names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.dotenv import read_variables
from pytest_sandbox_runtime.compose.fields import Section, boolean, given, one_of, pairs, path
from pytest_sandbox_runtime.compose.reading import UnreadableError

if TYPE_CHECKING:
    from pytest_sandbox_runtime.compose.model import Pairs
    from pytest_sandbox_runtime.compose.nodes import Node

_RESERVED = "com.docker.compose"


def parse_environment(service: Section) -> Pairs:
    """Return the environment of a service: ``environment`` over the files of ``env_file``, a later over an earlier."""
    found: dict[str, str] = {}
    for node in _items(service, "env_file"):
        with service.problems.collecting():
            found |= _file(node, found)
    said = service.node.get("environment")
    nothing: Pairs = ()
    found |= service.read("environment", given, nothing)
    # A name without a value that nothing gives one is taken away from what the files say.
    for name, entry in said.entries.items() if said else ():
        if entry.value is None and name not in entry.place.source.variables:
            found.pop(name, None)
    return tuple(found.items())


def parse_labels(service: Section) -> Pairs:
    """Return the labels of a service: ``labels`` over the files of ``label_file``."""
    found: dict[str, str] = {}
    for node in _items(service, "label_file"):
        with service.problems.collecting():
            found |= _file(node, found)
    nothing: Pairs = ()
    found |= service.read("labels", pairs, nothing)
    for name in found:
        if name.startswith(_RESERVED):
            place = service.node.get("labels") or service.node
            service.problems.add(place.error(f"the label {name} is reserved", f"no label begins with {_RESERVED}"))
    return tuple(found.items())


def _items(service: Section, name: str) -> tuple[Node, ...]:
    node = service.node.get(name)
    return node.items if node else ()


def _file(node: Node, before: dict[str, str]) -> dict[str, str]:
    where = node.get("path") or node
    required, form = node.get("required"), node.get("format")
    raw = bool(form) and one_of(("raw",))(form) == "raw" if form else False
    file = path(where)
    if not os.path.exists(file) and required and not boolean(required):
        return {}
    try:
        return read_variables(file, {**before, **node.place.source.variables}, raw=raw)
    except UnreadableError as error:
        raise where.error(f"{file} cannot be read: {error}") from error
