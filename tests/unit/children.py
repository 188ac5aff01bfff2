"""Children of the test's process: for what ends a process, or cannot be undone in it."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOBODY = 65534


def child_of(action: Callable[[], object]) -> int:
    """Run ``action`` in a process of its own, and return its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def end_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def as_ordinary_user(place: Path, action: Callable[[], object]) -> None:
    """Run ``action`` in ``place``, which becomes writable, as a user without rights."""

    def without_rights() -> None:
        os.chdir(place)  # what is above it may be closed to the user
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        action()

    place.chmod(0o777)
    assert end_of(child_of(without_rights)) == 0
