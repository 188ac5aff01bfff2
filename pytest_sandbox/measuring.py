"""What coverage.py measures inside, brought to where the run is reported. PYTEST_DONT_REWRITE.

A fork goes on measuring, into a file that goes with its sandbox. What it has measured comes home in place of that.
"""

from __future__ import annotations

import glob
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Measured(NamedTuple):
    """What a unit's process has measured, and, by their paths, the files in which its children have what they did."""

    own: bytes
    files: dict[str, bytes]


def _current() -> Any:
    coverage = sys.modules.get("coverage")
    return None if coverage is None else coverage.Coverage.current()


def measured() -> Measured | None:
    """Return what was measured in this process, a fork, and by its children; None where nothing measures."""
    current = _current()
    if current is None:
        return None
    own = current.get_data()
    path = current.get_option("run:data_file")
    left = (Path(one) for one in glob.glob(f"{glob.escape(path)}.*") if one != own.data_filename())
    return Measured(own.dumps(), {str(one.resolve()): one.read_bytes() for one in left})


def merge(units: Iterable[Measured]) -> None:
    """Have what the units have measured in what this process has."""
    current = _current()
    for unit in units:
        for path, content in unit.files.items():
            Path(path).write_bytes(content)
        if current is not None:
            other = sys.modules["coverage"].CoverageData(no_disk=True)
            other.loads(unit.own)
            current.get_data().update(other)
