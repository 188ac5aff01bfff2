"""Engines whose builds are watched on standard error. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from pytest_sandbox.progress import Progress

if TYPE_CHECKING:
    from pytest_sandbox_runtime import EngineSettings


def watched(*, rebuild: bool = False, quiet: bool = False, **words: Any) -> EngineSettings:
    """Return the settings of an engine that says on standard error what it builds, unless it is to be ``quiet``."""
    from pytest_sandbox_runtime import EngineSettings

    if not quiet:
        progress = Progress(_say, is_terminal=sys.stderr.isatty())
        words.update(report=progress.report, done=progress.done, amount=progress.amount)
    rebuild = rebuild or bool(os.environ.get("PYTEST_SANDBOX_NO_CACHE"))
    return EngineSettings(rebuild=rebuild, offline=is_offline(), **words)


def is_offline() -> bool:
    """Whether the network may not be used."""
    return bool(os.environ.get("PYTEST_SANDBOX_OFFLINE"))


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
