"""A row of the table, and the table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of work: what was measured beside what must be. ``met`` is None where nothing could be compared."""

    work: str
    measured: str
    beside: str = ""
    must: str
    aim: str = ""
    met: bool | None = None


def dump(row: Row) -> str:
    """Return ``row`` as a line for ``load``."""
    return json.dumps(asdict(row))


def load(line: str) -> Row:
    """Return the row that ``dump`` made the line of."""
    return Row(**json.loads(line))


def milliseconds(seconds: float) -> str:
    """Return ``seconds`` as the table shows them."""
    return f"{seconds * 1000:.2f} ms"


def render(rows: list[Row]) -> str:
    """Return ``rows`` as a table in Markdown."""
    lines = ["| work | measured | beside it | must | met | aim |", "|---|---|---|---|---|---|"]
    for row in rows:
        met = {True: "yes", False: "NO", None: "?"}[row.met]
        lines.append(f"| {row.work} | {row.measured} | {row.beside} | {row.must} | {met} | {row.aim} |")
    return "\n".join(lines)
