"""PYTEST_DONT_REWRITE. What chmod= says, as chmod(1) reads it."""

from __future__ import annotations

import re

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION = re.compile(r"([-+=])([rwxXst]+|[ugo])?")
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}


def apply_mode(said: str | None, mode: int, *, is_directory: bool = False) -> int:
    """Return ``mode`` as ``said``, octal or symbolic, changes it; None changes nothing."""
    if said is None:
        return mode
    if said.isdigit():
        return int(said, 8)
    for clause in said.split(","):
        found = _CLAUSE.fullmatch(clause)
        if found is not None:
            mode = _apply(found[1] or "a", found[2], mode, is_directory=is_directory)
    return mode


def _apply(who: str, actions: str, mode: int, *, is_directory: bool) -> int:
    reach = 0o7777 if "a" in who else sum(_WHO[letter] for letter in set(who))
    for operator, letters in _ACTION.findall(actions):
        # Those of a directory stay unless they are named.
        kept = 0o6000 & ~(reach if "s" in letters else 0) if is_directory else 0
        bits = _bits(letters, mode, is_directory=is_directory) & reach & ~kept
        if operator == "+":
            mode |= bits
        elif operator == "-":
            mode &= ~bits
        else:
            mode = mode & (~reach | kept) | bits
    return mode


def _bits(letters: str, mode: int, *, is_directory: bool) -> int:
    if letters in ("u", "g", "o") and letters:
        copied = mode >> {"u": 6, "g": 3, "o": 0}[letters] & 0o7
        return copied * 0o111
    bits = 0
    for letter in letters:
        if letter == "X":
            bits |= 0o111 if is_directory or mode & 0o111 else 0
        elif letter == "s":
            bits |= 0o6000
        elif letter == "t":
            bits |= 0o1000
        else:
            bits |= _BITS[letter]
    return bits
