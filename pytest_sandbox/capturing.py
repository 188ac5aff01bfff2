"""--sandbox-capture: what a test's sandboxes send and receive, from their start, in files of the store.

They are written where they are kept, so that those of a run that was killed are there, too. PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from typing import TYPE_CHECKING

from pytest_sandbox.fixtures import CAPTURED, CAPTURES, FAILED
from pytest_sandbox.settings import SETTINGS

if TYPE_CHECKING:
    import pytest

    from pytest_sandbox_runtime.capturing import Capture
    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.sandbox import Sandbox

# As many runs as pytest keeps of tmp_path.
_RUNS = 3
# For each sandbox, whose test it makes wait by as little as possible.
_BUFFER = 8 << 20
_LONGEST = 100


def begin(item: pytest.Item, engine: Engine, sandbox: Sandbox, label: str) -> None:
    """Capture what ``sandbox``, which has just started for ``item``, sends, where it has a network of its own."""
    if sandbox.spec.network == "host":
        return
    directory = _directory_of(engine)
    if not os.path.isdir(directory):
        _make_room(os.path.dirname(directory), os.path.join(engine.store.path, "runs"))
        os.makedirs(directory, mode=0o700, exist_ok=True)
    name = "-".join((*map(_plain, (item.name, label)), sandbox.name))
    capture = sandbox.capture(os.path.join(directory, f"{name}.pcap"), buffer=_BUFFER)
    item.stash.setdefault(CAPTURES, []).append(capture)


def end(item: pytest.Item, report: pytest.TestReport) -> None:
    """Have the last report of a test name its files, or remove them, as the settings say of one that ended so."""
    failed = report.failed or item.stash.get(FAILED, False)
    if failed or item.config.stash[SETTINGS].capture == "all":
        report.user_properties += [(CAPTURED, capture.path) for capture in _taken(item)]
    else:
        for capture in _taken(item):
            capture.discard()


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII)[:_LONGEST]


def _taken(item: pytest.Item) -> list[Capture]:
    captures = item.stash.get(CAPTURES, [])
    item.stash[CAPTURES] = []
    return captures


def forget_empty(engine: Engine) -> None:
    """Remove the directory of a run that has kept nothing."""
    with contextlib.suppress(OSError):
        os.rmdir(_directory_of(engine))


def _directory_of(engine: Engine) -> str:
    return os.path.join(engine.store.path, "captures", os.path.basename(engine.run_directory))


def _make_room(directory: str, runs: str) -> None:
    """Remove what is kept of all but the last runs, and those that go on."""
    with contextlib.suppress(FileNotFoundError):
        ended = [entry for entry in os.scandir(directory) if not os.path.exists(os.path.join(runs, entry.name))]
        ended.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in ended[_RUNS - 1 :]:
            shutil.rmtree(entry.path, ignore_errors=True)
