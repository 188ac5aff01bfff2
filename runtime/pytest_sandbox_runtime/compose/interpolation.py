"""PYTEST_DONT_REWRITE. Variables in values: ``$NAME``, ``${NAME}``, and the six ways to say what else, to any depth."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_sandbox_runtime.compose.nodes import Node, Place
    from pytest_sandbox_runtime.errors import ComposeError

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_OPERATOR = re.compile(r":?[-?+]")
_DEEPEST = 100


class InterpolationError(ValueError):
    """A text whose variables cannot be put in; ``hint`` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def expand(
    text: str, variables: Mapping[str, str], unset: Callable[[str], None] = lambda _: None, depth: int = 0
) -> str:
    """Return ``text`` with its variables put in; ``unset`` is told each that has neither value nor default.

    A dollar that begins no variable stays; raises InterpolationError where one is begun and not well ended.
    """
    if depth > _DEEPEST:
        raise InterpolationError("the variables are nested too deeply")
    parts = []
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        parts.append(text[position:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "{":
            end = _closing(text, dollar + 1)
            parts.append(_braced(text[dollar + 2 : end], variables, unset, depth))
            position = end + 1
        elif name := _NAME.match(text, dollar + 1):
            parts.append(_value(name[0], variables, unset))
            position = name.end()
        else:
            parts.append("$")
            position = dollar + (2 if following == "$" else 1)
    return "".join([*parts, text[position:]])


def interpolate(node: Node, collect: Callable[[ComposeError], None], note: Callable[[Place, str], None]) -> Node:
    """Return ``node`` with the variables of all its values put in, not those of its keys.

    What cannot be is told ``collect`` and stays; ``note`` is told what is merely odd.
    """
    if isinstance(node.value, dict):
        return node.having({name: interpolate(entry, collect, note) for name, entry in node.value.items()})
    if isinstance(node.value, tuple):
        return node.having(tuple(interpolate(item, collect, note) for item in node.value))
    if not isinstance(node.value, str) or "$" not in node.value:
        return node

    def unset(name: str) -> None:
        note(node.place, f"the variable {name} is not set, and is taken as empty")

    try:
        return node.having(expand(node.value, node.place.source.variables, unset))
    except InterpolationError as error:
        collect(node.error(str(error), error.hint))
        return node


def _closing(text: str, opening: int) -> int:
    depth = 0
    for position in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise InterpolationError(f"{text[opening - 1 :]!r} has no closing brace", "write $$ for a dollar")


def _braced(inner: str, variables: Mapping[str, str], unset: Callable[[str], None], depth: int) -> str:
    name = _NAME.match(inner)
    operator = _OPERATOR.match(inner, name.end()) if name else None
    if name is None or (operator is None and name.end() < len(inner)):
        hint = "there are ${NAME}, and with :- - :? ? :+ + after the name a default, an error, a replacement"
        raise InterpolationError(f"${{{inner}}} is no variable", hint)
    if operator is None:
        return _value(name[0], variables, unset)
    value = variables.get(name[0])
    there = bool(value) if operator[0].startswith(":") else value is not None
    word = inner[operator.end() :]
    kind = operator[0][-1]
    if kind == "+":
        return expand(word, variables, unset, depth + 1) if there else ""
    if there:
        return value or ""
    said = expand(word, variables, unset, depth + 1)
    if kind == "?":
        hint = "set it in the environment, or in the file .env beside the compose file"
        raise InterpolationError(f"the variable {name[0]} is required" + (f": {said}" if said else ""), hint)
    return said


def _value(name: str, variables: Mapping[str, str], unset: Callable[[str], None]) -> str:
    if name not in variables:
        unset(name)
    return variables.get(name, "")
