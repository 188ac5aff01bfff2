"""PYTEST_DONT_REWRITE. What a YAML file says, each value with the place where it stands.

A place goes with its value through interpolation, merges and extends, so that an error found at the very end still
names the line that the user wrote.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ComposeError

if TYPE_CHECKING:
    from collections.abc import Mapping

Scalar = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Source:
    """A file, the directory that its relative paths start from, and the variables that its values may use."""

    path: str
    directory: str
    variables: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: in a mapping the line of its key, in a list its own; both from 1 on."""

    source: Source
    line: int = 0
    column: int = 0
    key: str = ""

    def __str__(self) -> str:
        return f"{self.source.path}:{self.line}" if self.line else self.source.path

    def error(self, message: str, hint: str = "") -> ComposeError:
        """Return an error that names this place."""
        return ComposeError(message, path=self.source.path, line=self.line, column=self.column, key=self.key, hint=hint)

    def resolve(self, path: str) -> str:
        """Return ``path`` as an absolute one."""
        return os.path.normpath(os.path.join(self.source.directory, os.path.expanduser(path)))


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place; ``action`` is "reset" or "override" where a tag asks for that in a merge."""

    value: Scalar | tuple[Node, ...] | dict[str, Node]
    place: Place
    action: str = ""

    @property
    def items(self) -> tuple[Node, ...]:
        """The items of a list; none where this is no list."""
        return self.value if isinstance(self.value, tuple) else ()

    @property
    def entries(self) -> dict[str, Node]:
        """The entries of a mapping; none where this is no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    def get(self, *names: str) -> Node | None:
        """Return what stands there, or None: also where it is null."""
        node: Node | None = self
        for name in names:
            node = node.entries.get(name) if node is not None else None
        return None if node is None or node.value is None else node

    def error(self, message: str, hint: str = "") -> ComposeError:
        """Return an error that names this node's place."""
        return self.place.error(message, hint)

    def having(self, value: Scalar | tuple[Node, ...] | dict[str, Node]) -> Node:
        """Return this node with another value."""
        return replace(self, value=value)

    def with_entry(self, name: str, value: Node) -> Node:
        """Return this mapping with ``name`` as ``value``."""
        return self.having({**self.entries, name: value})

    def without(self, name: str) -> Node:
        """Return this mapping without ``name``."""
        return self.having({key: node for key, node in self.entries.items() if key != name})


def plain(node: Node) -> object:
    """Return the bare value, as JSON has it."""
    if isinstance(node.value, dict):
        return {name: plain(entry) for name, entry in node.value.items()}
    return [plain(item) for item in node.value] if isinstance(node.value, tuple) else node.value
