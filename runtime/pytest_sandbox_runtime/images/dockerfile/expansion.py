"""PYTEST_DONT_REWRITE. Variables, quotes and escapes in a Dockerfile's words, as BuildKit's shell/lex.go has them.

    expand('"$x" ${y:-none}', {"x": "1"})  ->  '1 none'

The pattern forms (``#`` ``##`` ``%`` ``%%`` ``/`` ``//``) know ``*`` and ``?``, and no brackets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.images.dockerfile.patterns import replace, strip_prefix, strip_suffix

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPECIAL = frozenset("@*#?-$!0")
_DEEPEST = 50


class ExpansionError(ValueError):
    """A word that cannot be expanded; the message says why."""


def expand(word: str, variables: Mapping[str, str], *, escape: str = "\\", quotes: bool = True) -> str:
    """Return ``word`` with its variables' values and, unless ``quotes`` is false, without its quotes.

    Raises ExpansionError.
    """
    return _Expansion(word, variables, escape, quotes=quotes).all().text


def expand_words(word: str, variables: Mapping[str, str], *, escape: str = "\\") -> list[str]:
    """Return what ``word`` expands to, split at spaces outside of quotes."""
    return _Expansion(word, variables, escape).all().words


def raw_words(line: str) -> list[str]:
    """Return the words of ``line`` as they are written, quotes, escapes and variables left alone."""
    return _Expansion(line, {}, "\\", raw_quotes=True, raw_escapes=True, keep_unset=True).all().words


def unquoted(word: str, *, raw_quotes: bool = False) -> list[str]:
    """Return the words of ``word`` without escapes, and without quotes unless ``raw_quotes``."""
    return _Expansion(word, {}, "\\", raw_quotes=raw_quotes, keep_unset=True).all().words


@dataclass
class _Said:
    """What was read so far, as one text and as words."""

    parts: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    _word: str = ""

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def add(self, text: str, *, splits: bool) -> None:
        self.parts.append(text)
        if not splits:
            self._word += text
            return
        for letter in text:
            if letter.isspace():
                self.end_word()
            else:
                self._word += letter

    def end_word(self) -> None:
        if self._word:
            self.words.append(self._word)
        self._word = ""


class _Expansion:
    """One pass over a text, with a position in it."""

    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        escape: str,
        *,
        quotes: bool = True,
        raw_quotes: bool = False,
        raw_escapes: bool = False,
        keep_unset: bool = False,
    ) -> None:
        self._text = text
        self._at = 0
        self._variables = variables
        self._escape = escape
        self._quotes = quotes
        self._raw_quotes = raw_quotes
        self._raw_escapes = raw_escapes
        self._keep_unset = keep_unset
        self._depth = 0

    def all(self) -> _Said:
        return self._until("", raw_escapes=self._raw_escapes)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        letter = self._peek()
        self._at += 1
        return letter

    def _until(self, stop: str, *, raw_escapes: bool) -> _Said:
        """Read on to ``stop``, or to the end where it is empty."""
        said, outer = _Said(), self._raw_escapes
        self._raw_escapes = raw_escapes
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ExpansionError("too many substitutions in each other")
        while self._at < len(self._text) and not (stop and self._peek() == stop):
            self._one(said)
        if stop and not self._peek():
            raise ExpansionError(f"syntax error: missing {stop!r}")
        self._at += len(stop)
        self._raw_escapes = outer
        self._depth -= 1
        said.end_word()
        return said

    def _one(self, said: _Said) -> None:
        letter = self._peek()
        if letter == "$":
            said.add(self._dollar(), splits=True)
        elif letter == "<":
            said.add(self._less(), splits=False)
        elif self._quotes and letter == "'":
            said.add(self._single_quoted(), splits=False)
        elif self._quotes and letter == '"':
            said.add(self._double_quoted(), splits=False)
        elif letter == self._escape:
            self._at += 1
            said.add((letter if self._raw_escapes else "") + self._next(), splits=False)
        else:
            said.add(self._next(), splits=True)

    def _less(self) -> str:
        # A heredoc's word may stand apart from its <<, and is one word with it.
        if self._text[self._at : self._at + 2] != "<<":
            return self._next()
        end = self._at + 2
        while end < len(self._text) and self._text[end] in " \t\r":
            end += 1
        start, self._at = self._at, end
        return self._text[start:end]

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise ExpansionError("a single quote is not closed")
        start, self._at = self._at, end + 1
        return self._text[start : end + 1] if self._raw_quotes else self._text[start + 1 : end]

    def _double_quoted(self) -> str:
        quote = self._next()
        found = []
        while (letter := self._peek()) != quote:
            if not letter:
                raise ExpansionError("a double quote is not closed")
            found.append(self._dollar() if letter == "$" else self._in_double_quotes())
        self._at += 1
        text = "".join(found)
        return f'"{text}"' if self._raw_quotes else text

    def _in_double_quotes(self) -> str:
        letter = self._next()
        if letter != self._escape:
            return letter
        kept = letter if self._raw_escapes else ""
        if self._peek() in {'"', "$", self._escape}:
            return kept + self._next()
        # An escape of anything else stands for itself, and one at the end for nothing.
        return kept + letter if self._peek() else kept

    def _dollar(self) -> str:
        self._at += 1
        if self._peek() == "{":
            self._at += 1
            return self._braces()
        name = self._name()
        if not name:
            return "$"
        if self._keep_unset and name not in self._variables:
            return f"${name}"
        return self._variables.get(name, "")

    def _name(self) -> str:
        start, first = self._at, self._peek()
        if first.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        elif first and first in _SPECIAL:
            self._at += 1
        else:
            while self._peek().isalpha() or self._peek().isdecimal() or self._peek() == "_":
                self._at += 1
        return self._text[start : self._at]

    def _braces(self) -> str:
        if not self._peek():
            raise ExpansionError("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise ExpansionError("syntax error: bad substitution")
        name = self._name()
        operator = self._next()
        if operator == "}":
            return self._variables.get(name, f"${{{name}}}" if self._keep_unset else "")
        if operator == "/":
            return self._replaced(name)
        colon = operator == ":"
        if colon:
            operator = self._next()
        if not operator:
            raise ExpansionError("syntax error: missing '}'")
        if operator not in ("-+?" if colon else "-+?#%"):
            raise ExpansionError(f"unsupported modifier ({':' * colon}{operator}) in substitution")
        word = self._until("}", raw_escapes=operator in "#%").text
        if self._keep_unset and name not in self._variables:
            return f"${{{name}{':' * colon}{operator}{word}}}"
        return self._stripped(name, operator, word) if operator in "#%" else self._chosen(name, operator, word, colon)

    def _chosen(self, name: str, operator: str, word: str, empty_is_unset: bool) -> str:  # noqa: FBT001
        value = self._variables.get(name)
        is_set = value is not None and not (empty_is_unset and not value)
        if operator == "+":
            return word if is_set else ""
        if operator == "?" and not is_set:
            lack = "unset" if value is None else "empty"
            raise ExpansionError(f"{name}: {word or f'is not allowed to be {lack}'}")
        return word if not is_set else value or ""

    def _stripped(self, name: str, operator: str, pattern: str) -> str:
        value = self._variables.get(name, "")
        longest = pattern.startswith(operator)
        try:
            strip = strip_prefix if operator == "#" else strip_suffix
            return strip(value, pattern[1:] if longest else pattern, longest=longest)
        except ValueError as error:
            raise ExpansionError(f"invalid pattern ({pattern}) in substitution: {error}") from error

    def _replaced(self, name: str) -> str:
        everywhere = self._peek() == "/"
        self._at += everywhere
        pattern = self._until("/", raw_escapes=True).text
        replacement = self._until("}", raw_escapes=True).text
        if self._keep_unset and name not in self._variables:
            return f"${{{name}/{pattern}/{replacement}}}"
        try:
            return replace(self._variables.get(name, ""), pattern, replacement, everywhere=everywhere)
        except ValueError as error:
            raise ExpansionError(f"invalid pattern ({pattern}) in substitution: {error}") from error
