"""--sandbox-report-leaks: what a test that ran inside has left on its machine. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pytest_sandbox.fixtures import LEFT
from pytest_sandbox.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from pytest_sandbox.unit import Unit
    from pytest_sandbox_runtime.sandbox import Sandbox

# Of pytest itself, of its tmp_path, and of Python.
_OWN = ("/tmp/pytest-of-", "/__pycache__", "/.pytest_cache")


def note(unit: Unit, item: pytest.Item, pid: int) -> None:
    """Take note of what there is now, behind ``item``, and not before; ``pid`` is that of the unit's process."""
    if item.config.stash[SETTINGS].leaks:
        before, unit.left = unit.left, {}
        for thing in (*_files(unit.sandbox), *_processes(unit.sandbox, pid), *_ports(unit.sandbox)):
            unit.left[thing] = before.get(thing, item.nodeid)


def tell(unit: Unit, item: pytest.Item, report: pytest.TestReport) -> None:
    """Let the last report of a unit say what is left of it, and, if the settings say so, fail for it."""
    if not unit.left:
        return
    told = [f"left {thing}" if by == item.nodeid else f"left {thing}, by {by}" for thing, by in unit.left.items()]
    text = "\n".join(told)
    report.user_properties = [*report.user_properties, *((LEFT, one) for one in told)]
    if item.config.stash[SETTINGS].leaks == "error" and report.passed:
        report.outcome = "failed"
        report.longrepr = text
    else:
        report.sections = [*report.sections, ("left behind", text)]


def _files(sandbox: Sandbox) -> Iterator[str]:
    for change in sandbox.changes():
        # A directory is as its files are.
        if change.type != "directory" and not any(part in change.path for part in _OWN):
            yield f"{change.path} {change.kind}"


def _processes(sandbox: Sandbox, own: int) -> Iterator[str]:
    for pid in sandbox.files.listdir("/proc"):
        if pid.isdecimal() and int(pid) not in (1, own):
            # It may have ended.
            with contextlib.suppress(OSError):
                words = sandbox.files.read_bytes(f"/proc/{pid}/cmdline").decode(errors="replace").split("\0")
                # Of those that are dead nothing is there.
                if words != [""]:
                    yield f"process {pid}: {' '.join(words).strip()}"


def _ports(sandbox: Sandbox) -> Iterator[str]:
    if sandbox.spec.network != "host":
        yield from (f"somebody who listens at {one}" for one in sandbox.listeners.all())
