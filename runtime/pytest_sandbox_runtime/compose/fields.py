"""PYTEST_DONT_REWRITE. Values as declarations hold them, each with an error that names its place."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, TypeVar

from pytest_sandbox_runtime.compose.scalars import resolve, written
from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.checks import parse_duration, parse_size
from pytest_sandbox_runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pytest_sandbox_runtime.compose.model import Pairs
    from pytest_sandbox_runtime.compose.nodes import Node
    from pytest_sandbox_runtime.compose.problems import Problems

T = TypeVar("T")
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_SHELL = re.compile(r"[;|&<>]")


class Section:
    """A mapping that is read key by key; what is wrong with a key is told ``problems``, and the key left out."""

    def __init__(self, node: Node, problems: Problems) -> None:
        self.node = node
        self.problems = problems

    def read(self, name: str, convert: Callable[[Node], T], default: T) -> T:
        """Return what ``convert`` makes of the key ``name``, ``default`` without one or with one that is wrong."""
        node = self.node.get(name)
        if node is not None:
            with self.problems.collecting():
                return convert(node)
        return default

    def items(self, name: str, convert: Callable[[Node], T]) -> tuple[T, ...]:
        """Return what ``convert`` makes of each item of the list ``name``."""
        node = self.node.get(name)
        found = []
        for item in node.items if node else ():
            with self.problems.collecting():
                found.append(convert(item))
        return tuple(found)

    def section(self, name: str) -> Section | None:
        """Return the mapping ``name``."""
        node = self.node.get(name)
        return None if node is None else Section(node, self.problems)


def text(node: Node) -> str:
    """Return a text."""
    if isinstance(node.value, (dict, tuple)) or node.value is None:
        raise node.error("has to be a text")
    return written(node.value)


def filled(node: Node) -> str:
    """Return a text that is not empty."""
    said = text(node)
    if not said.strip() or "\0" in said:
        raise node.error("is empty" if not said.strip() else "has a null byte")
    return said


def boolean(node: Node) -> bool:
    """Return true or false."""
    words = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "y": True, "n": False}
    found = node.value if isinstance(node.value, bool) else words.get(str(node.value).lower())
    if found is None:
        raise node.error(f"{node.value!r} is neither true nor false")
    return found


def whole(node: Node) -> int:
    """Return a whole number."""
    value = resolve(node.value) if isinstance(node.value, str) else node.value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise node.error(f"{node.value!r} is no whole number")
    return value


def count(node: Node) -> int:
    """Return a whole number that is not less than 0."""
    value = whole(node)
    if value < 0:
        raise node.error(f"{value} is less than 0")
    return value


def number(node: Node) -> float:
    """Return a number that is not less than 0."""
    value = resolve(node.value) if isinstance(node.value, str) else node.value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise node.error(f"{node.value!r} is no number from 0 on")
    return float(value)


def size(node: Node) -> int:
    """Return bytes."""
    try:
        return parse_size(text(node))
    except SpecError as error:
        raise node.error(error.message, 'write bytes, or for example "256m"') from None


def duration(node: Node) -> float:
    """Return seconds."""
    try:
        return float(parse_duration(text(node)))
    except SpecError as error:
        raise node.error(error.message, 'write for example "10s" or "1m30s"') from None


def words(node: Node) -> tuple[str, ...]:
    """Return a command: a list as it is, a text as a shell's words, though no shell will see it."""
    if isinstance(node.value, tuple):
        return tuple(text(item) for item in node.value)
    line = text(node)
    if control := _SHELL.search(_QUOTED.sub("", line)):
        hint = "this is no line for a shell: write a list of sh, -c and the line, or quote the character"
        raise node.error(f"has {control[0]} outside of quotes", hint)
    try:
        return tuple(shlex.split(line))
    except ValueError as error:
        raise node.error(f"{line!r} cannot be split into words: {str(error).lower()}") from None


def pairs(node: Node) -> Pairs:
    """Return a mapping of texts; a name alone has an empty value."""
    return tuple((name, "" if entry.value is None else text(entry)) for name, entry in node.entries.items())


def given(node: Node) -> Pairs:
    """Return a mapping of texts; a name alone has its value from the environment, or is left out."""
    found = []
    for name, entry in node.entries.items():
        value = entry.place.source.variables.get(name) if entry.value is None else text(entry)
        if value is not None:
            found.append((name, value))
    return tuple(found)


def one_of(known: Collection[str]) -> Callable[[Node], str]:
    """Return a conversion that takes the words ``known``."""

    def convert(node: Node) -> str:
        said = text(node)
        if said not in known:
            raise node.error(f"{said!r} is not known", did_you_mean(said, known, f"there is {', '.join(known)}"))
        return said

    return convert


def path(node: Node) -> str:
    """Return a path of this machine as an absolute one."""
    return node.place.resolve(filled(node))


def target(node: Node) -> str:
    """Return an absolute path in the sandbox."""
    said = filled(node)
    if not said.startswith("/") or ".." in said.split("/"):
        raise node.error(f"{said!r} is no absolute path without ..", "paths in a sandbox begin with /")
    return "/" + "/".join(part for part in said.split("/") if part not in {"", "."})
