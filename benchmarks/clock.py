"""Times of calls and of commands."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def times_of(work: Callable[[], object], count: int, *, warm: int = 3) -> list[float]:
    """Return the seconds of each of ``count`` calls, after ``warm`` ones that do not count."""
    for _ in range(warm):
        work()
    times = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def times_of_command(argv: Sequence[str], count: int) -> list[float]:
    """Return the seconds of each of ``count`` runs of ``argv``; raises CalledProcessError when one fails."""
    return times_of(lambda: check(argv), count)


def check(argv: Sequence[str]) -> str:
    """Run ``argv`` to its end and return its output; raises CalledProcessError with what it said."""
    done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
    return done.stdout
