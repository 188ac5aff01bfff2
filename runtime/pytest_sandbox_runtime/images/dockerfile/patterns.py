"""PYTEST_DONT_REWRITE. The patterns of ``${x#p}`` and its like: ``*`` is any text, ``?`` any character.

Matched in time that grows with the length of text times pattern, whatever a Dockerfile says.
"""

from __future__ import annotations

from typing import Final

_ANY: Final = object()
_ONE: Final = object()
_Token = object


def strip_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """Return ``value`` without the shortest, or longest, start that ``pattern`` matches."""
    ends = _ends(value, _tokens(pattern))
    return value[(max(ends) if longest else min(ends)) :] if ends else value


def strip_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """Return ``value`` without the shortest, or longest, end that ``pattern`` matches."""
    ends = _ends(value[::-1], _tokens(pattern)[::-1])
    return value[: len(value) - (max(ends) if longest else min(ends))] if ends else value


def replace(value: str, pattern: str, replacement: str, *, everywhere: bool) -> str:
    """Return ``value`` with the first match of ``pattern``, or every one, replaced; the longest where it begins."""
    tokens, found, at = _tokens(pattern), [], 0
    while at < len(value):
        ends = _ends(value[at:], tokens)
        if not ends or max(ends) == 0:
            found.append(value[at])
            at += 1
            continue
        found.append(replacement)
        at += max(ends)
        if not everywhere:
            break
    return "".join(found) + value[at:]


def _tokens(pattern: str) -> list[_Token]:
    """Return ``pattern`` as characters and wild cards; raises ValueError where it escapes what needs none."""
    tokens: list[_Token] = []
    letters = iter(pattern)
    for letter in letters:
        if letter != "\\":
            tokens.append({"*": _ANY, "?": _ONE}.get(letter, letter))
            continue
        escaped = next(letters, "")
        if escaped not in set("*?\\}/"):
            raise ValueError(f"invalid escape '\\{escaped}'")
        tokens.append(escaped)
    return tokens


def _ends(value: str, tokens: list[_Token]) -> set[int]:
    """Return where a match of all ``tokens`` that begins at the start of ``value`` can end."""
    ends = {0}
    for token in tokens:
        if not ends:
            break
        if token is _ANY:
            ends = set(range(min(ends), len(value) + 1))
        elif token is _ONE:
            ends = {end + 1 for end in ends if end < len(value)}
        else:
            ends = {end + 1 for end in ends if end < len(value) and value[end] == token}
    return ends
