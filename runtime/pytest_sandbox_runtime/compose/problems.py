"""PYTEST_DONT_REWRITE. Mistakes, collected so that they are told together."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ComposeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.compose.nodes import Place


class Problems:
    """The mistakes that were found so far, and what is merely odd."""

    def __init__(self) -> None:
        self._errors: dict[tuple[object, ...], ComposeError] = {}
        self._notes: dict[tuple[object, ...], str] = {}

    def add(self, error: ComposeError) -> None:
        """Remember ``error``, once: what several services share by an alias or by extends is read for each of them."""
        for problem in error.problems:
            said = str(problem).replace(f" {problem.key}: ", " ", 1)
            self._errors.setdefault((problem.path, problem.line, problem.column, said), problem)

    def note(self, place: Place, text: str) -> None:
        """Remember what Compose would warn of, once."""
        key = (place.source.path, place.line, place.column, text)
        self._notes.setdefault(key, f"{place}: {place.key}: {text}")

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noted."""
        return tuple(self._notes.values())

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Remember a ComposeError instead of raising it."""
        try:
            yield
        except ComposeError as error:
            self.add(error)

    def check(self) -> None:
        """Raise what was found, if anything, in the order of the lines."""
        if self._errors:
            raise ComposeError.of(
                sorted(self._errors.values(), key=lambda error: (error.path, error.line, error.column))
            )
