"""What a test needs of its host: ``@pytest.mark.needs("root", "overlayfs")``, by the names of doctor's table."""

from __future__ import annotations

import os

import pytest

from pytest_sandbox_runtime.capabilities import names, probe

pytest_plugins = ["pytester"]


def _needs(item: pytest.Item) -> list[str]:
    return sorted({name for mark in item.iter_markers("needs") for name in mark.args})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if unknown := sorted(set(_needs(item)) - set(names())):
            msg = f"{item.nodeid} needs {', '.join(unknown)}, but doctor's table has only: {', '.join(names())}"
            raise pytest.UsageError(msg)


def pytest_runtest_setup(item: pytest.Item) -> None:
    lacking = [row for row in map(probe, _needs(item)) if not row.available]
    if lacking:
        give_up = pytest.fail if os.environ.get("SANDBOX_MUST_RUN") else pytest.skip
        give_up("this host lacks " + "; ".join(f"{row.name} ({row.reason})" for row in lacking))
