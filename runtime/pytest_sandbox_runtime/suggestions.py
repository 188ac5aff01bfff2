"""Hints for words that are none. PYTEST_DONT_REWRITE."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a hint with the one of ``known`` that is most like ``word``, ``otherwise`` where none is."""
    # Milliseconds to import, and most words are right.
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]}?" if near else otherwise
