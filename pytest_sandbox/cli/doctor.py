"""``pytest-sandbox doctor``: what this host can do, what it cannot, why not, and what to do about it.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from pytest_sandbox_runtime import require_linux
from pytest_sandbox_runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_sandbox_runtime.capabilities import Capability

_COLUMNS = 100


def doctor(write: Callable[[str], None]) -> int:
    """Write the table, a line at a time and without line ends; returns 1 where no sandbox can be made, else 0."""
    try:
        require_linux()
    except UnsupportedError as error:
        write(str(error))
        return 1
    from pytest_sandbox_runtime.capabilities import missing, table

    rows = table()
    for line in describe(rows):
        write(line)
    write("")
    write(verdict(missing()))
    return 1 if missing() else 0


def describe(rows: Sequence[Capability]) -> list[str]:
    """Return the lines of the table: a row each, and below it what to do, where something is to be done."""
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        head = f"{mark(row):<3} {row.name:<{width}}  "
        lines += _wrap(row.reason, head, " " * len(head))
        if row.mend and not row.available:
            lines += _wrap(row.mend, f"{'->':>{width + 4}}  ", " " * len(head))
    return lines


def mark(row: Capability) -> str:
    """Return "ok", "no", or "-" for what is not available and not needed either."""
    if row.available:
        return "ok"
    return "no" if row.required or row.mend else "-"


def verdict(lacking: Sequence[Capability]) -> str:
    """Return the last line: whether the main job, a test in a sandbox, can run here."""
    if lacking:
        return f"The main job cannot run here: {', '.join(row.name for row in lacking)}"
    return "The main job can run here: every test in a disposable machine of its own."


def _wrap(text: str, first: str, others: str) -> list[str]:
    # Commands are there to be pasted, and paths to be found: neither is broken in two.
    return textwrap.wrap(
        text, _COLUMNS, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
