"""PYTEST_DONT_REWRITE. Files of variables: ``.env``, ``env_file`` and ``label_file``, in Compose's format."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.interpolation import InterpolationError, expand
from pytest_sandbox_runtime.compose.nodes import Place, Source
from pytest_sandbox_runtime.compose.reading import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_NAME = re.compile(r"(?:export[ \t]+)?([\w.\-\[\]]+)[ \t]*(?:([=:])[ \t]*|(?=\n|$))")
_SINGLE = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_REST = re.compile(r"[ \t]*(#[^\n]*)?(?=\n|$)")
_ESCAPE = re.compile(r"\\(0[0-7]{0,3}|.)", re.DOTALL)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}


def read_variables(path: str, variables: Mapping[str, str], *, raw: bool = False) -> dict[str, str]:
    """Return what the file ``path`` sets; ``variables`` may be used in it, and come before its own.

    A name alone is what ``variables`` has of it, if anything. ``raw`` takes values as they stand. Raises
    UnreadableError, or ComposeError where a line is not of that format.
    """
    text = read_text(path)
    return _raw(text, variables) if raw else _Reader(path, text, variables).read()


def _raw(text: str, variables: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if equals:
            found[name.strip()] = value
        elif name.strip() in variables:
            found[name.strip()] = variables[name.strip()]
    return found


class _Reader:
    def __init__(self, path: str, text: str, variables: Mapping[str, str]) -> None:
        self._source = Source(path, "")
        self._text = text
        self._position = 0
        self._variables = variables
        self._found: dict[str, str] = {}

    def read(self) -> dict[str, str]:
        while self._skip():
            match = _NAME.match(self._text, self._position)
            if match is None:
                line = self._text[self._position :].split("\n", 1)[0]
                raise self._at().error(f"{line!r} sets no variable", "lines are NAME=value, or comments behind a #")
            self._position = match.end()
            if match[2]:
                self._found[match[1]] = self._value()
            elif match[1] in self._variables:
                self._found[match[1]] = self._variables[match[1]]
        return self._found

    def _skip(self) -> bool:
        skipped = _BLANK.match(self._text, self._position)
        self._position = skipped.end() if skipped else self._position
        return self._position < len(self._text)

    def _at(self) -> Place:
        return Place(self._source, self._text.count("\n", 0, self._position) + 1, 1)

    def _value(self) -> str:
        quote = self._text[self._position : self._position + 1]
        if quote not in {'"', "'"}:
            line, _, _ = self._text[self._position :].partition("\n")
            self._position += len(line)
            value = line if not line.startswith("#") else ""
            return self._expanded(value.split(" #", 1)[0].strip())
        match = (_DOUBLE if quote == '"' else _SINGLE).match(self._text, self._position)
        if match is None:
            raise self._at().error("the quote is never closed", "write \\ before a quote within a value")
        value = match[1].replace("\\'", "'") if quote == "'" else self._expanded(_unescaped(match[1]))
        self._position = match.end()
        rest = _REST.match(self._text, self._position)
        if rest is None:
            raise self._at().error("something follows the closing quote", "put the whole value in the quotes")
        self._position = rest.end()
        return value

    def _expanded(self, text: str) -> str:
        try:
            return expand(text, {**self._found, **self._variables})
        except InterpolationError as error:
            raise self._at().error(str(error), error.hint) from error


def _unescaped(text: str) -> str:
    def replaced(match: re.Match[str]) -> str:
        said = match[1]
        if said == "$":
            return "$$"  # the dollar that stays one when variables are put in
        if said[0] == "0":
            return chr(int(said, 8))
        return _ESCAPES.get(said, match[0])

    return _ESCAPE.sub(replaced, text)
