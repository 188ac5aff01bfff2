"""PYTEST_DONT_REWRITE. A statement's text taken apart: its keyword, its flags, and its words, as they are written."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPACES = re.compile(r"[\t\v\f\r ]+")


class WordsError(ValueError):
    """Words that make no sense together; the message says why."""


def split_statement(text: str, escape: str) -> tuple[str, tuple[str, ...], str]:
    """Return the keyword in capitals, the flags without quotes, and the rest."""
    keyword, *others = text.split(maxsplit=1) or [""]
    flags, rest = _split_flags("".join(others), escape)
    return keyword.upper(), flags, rest.strip()


def _split_flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    flags: list[str] = []
    at = 0
    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        if not text.startswith("--", at):
            return tuple(flags), text[at:]
        flag, at = _flag(text, at, escape)
        if flag == "--":
            return tuple(flags), text[at:]
        flags.append(flag)


def _flag(text: str, at: int, escape: str) -> tuple[str, int]:
    """Return the word at ``at``, without quotes and escapes, and where it ends."""
    found, quote = "", ""
    while at < len(text) and (quote or not text[at].isspace()):
        letter = text[at]
        at += 1
        if quote and letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        elif letter == escape:
            found += text[at : at + 1]
            at += 1
        else:
            found += letter
    return found, at


def words_of(text: str, escape: str) -> list[str]:
    """Return the words of ``text``, split at spaces outside of quotes; quotes and escapes stay."""
    found, word, quote = [], "", ""
    letters: Iterator[str] = iter(text)
    for letter in letters:
        if not quote and letter.isspace():
            found.append(word)
            word = ""
        elif letter == escape and quote != "'":
            following = next(letters, "")
            word += letter + following if following else ""  # one at the end escapes nothing
        else:
            if not quote:
                quote = letter if letter in "'\"" else ""
            elif letter == quote:
                quote = ""
            word += letter
    return [*filter(None, found), *filter(None, [word])]


def split_spaces(text: str) -> list[str]:
    """Return what stands between the spaces of ``text``, quotes or not."""
    return [word for word in _SPACES.split(text) if word]


def pairs_of(text: str, escape: str) -> list[tuple[str, str]]:
    """Return ``name=value ...``, or the older ``name value``, as pairs; raises WordsError."""
    words = words_of(text, escape)
    if words and "=" not in words[0]:
        name, *values = _SPACES.split(text, maxsplit=1)
        if not values:
            raise WordsError(f"{name} has no value")
        return [(name, values[0])]
    for word in words:
        name, equals, _ = word.partition("=")
        if not equals or not name:
            raise WordsError(f"{word!r} is no name=value")
    return [(name, value) for name, _, value in (word.partition("=") for word in words)]


def json_list(text: str) -> list[str] | None:
    """Return the strings in ``text``, a JSON list; None where it is none. Raises WordsError for other values in it."""
    if not text.lstrip().startswith("["):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None  # a shell has [ too
    if not all(isinstance(value, str) for value in values):
        raise WordsError("a JSON list here holds strings only")
    # JSON can say half a character, and no file system, environment or argv can.
    return [value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for value in values]
