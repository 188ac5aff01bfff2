"""PYTEST_DONT_REWRITE. What a server asks for: the header WWW-Authenticate, by RFC 9110."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'\s*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))\s*(?:,|$)')
# A scheme, and behind it either parameters or one word in base 64.
_SCHEME = re.compile(rf"\s*({_WORD})(?:\s+|\s*(?=,)|\s*$)(?:[A-Za-z0-9\-._~+/]+=*\s*(?:,|$))?")
_ESCAPED = re.compile(r"\\(.)")
_MOST = 1 << 14


@dataclass(frozen=True)
class Challenge:
    """One way to show who one is: ``scheme`` in lower case, and what it needs to know."""

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """Return the parameter ``name``, empty where it is not there."""
        return dict(self.parameters).get(name, "")


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Return what ``header`` asks for, as far as it can be read: the rest of one that is damaged says nothing."""
    return tuple(_challenges(header[:_MOST]))


def _challenges(header: str) -> Iterator[Challenge]:
    position = 0
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            if header[position] not in ", \t":
                return
            position += 1
            continue
        position = scheme.end()
        parameters: dict[str, str] = {}
        while found := _PARAMETER.match(header, position):
            position = found.end()
            name, quoted, plain = found.groups()
            parameters.setdefault(name.lower(), plain if quoted is None else _ESCAPED.sub(r"\1", quoted))
        yield Challenge(scheme[1].lower(), tuple(sorted(parameters.items())))
