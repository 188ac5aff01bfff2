"""PYTEST_DONT_REWRITE. What a user holds and has to close."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import ExitStack

    from typing_extensions import Self


class Handle:
    """Ends with ``with``, with ``close``, or, which is worth a warning, when nobody refers to it any more."""

    # What is to be done at its end, as long as it has not come. Of one that could not be made there is nothing.
    _undo: ExitStack | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._is_forgotten:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=1)
            self.close()

    @property
    def _is_forgotten(self) -> bool:
        """Whether it was to be closed, if nobody refers to it any more."""
        return self._undo is not None

    def close(self) -> None:
        """End it. Again: nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo.close()

    def own(self, undo: ExitStack) -> None:
        """Have ``undo`` done when it is closed, behind everything else."""
        assert self._undo is not None  # it has just started
        undo.push(self._undo)
        self._undo = undo.pop_all()
