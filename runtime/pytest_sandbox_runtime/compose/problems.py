"""PYTEST_DONT_REWRITE. Mistakes, collected so that they are told together."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ComposeError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Problems:
    """The mistakes that were found so far, and what is merely odd."""

    def __init__(self) -> None:
        self._errors: list[ComposeError] = []
        self._notes: dict[str, None] = {}

    def add(self, error: ComposeError) -> None:
        """Remember ``error``, once: what several services share is read for each of them."""
        said = {str(known) for known in self._errors}
        self._errors += [problem for problem in error.problems if str(problem) not in said]

    def note(self, text: str) -> None:
        """Remember what Compose would warn of, once."""
        self._notes[text] = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noted."""
        return tuple(self._notes)

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
            raise ComposeError.of(sorted(self._errors, key=lambda error: (error.path, error.line, error.column)))
