"""What tests of runs that were killed wait for."""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path


def await_runs(store: str | Path) -> None:
    """Wait until all runs in ``store`` have ended: each has a lock, which is free then, and goes, too."""
    for path in Path(store, "locks").glob("run-*"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
