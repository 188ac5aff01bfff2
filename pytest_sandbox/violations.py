"""Connections and look-ups that a test's sandboxes were refused: told with its report. PYTEST_DONT_REWRITE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_sandbox.fixtures import ENGINE, REFUSED
from pytest_sandbox.settings import SETTINGS

if TYPE_CHECKING:
    import pytest


def tell(item: pytest.Item, report: pytest.TestReport) -> None:
    """Let ``report`` say what was refused since the last one, and, if the settings say so, fail for it."""
    wanted = item.config.stash[SETTINGS].violations
    if wanted == "ignore":
        return
    engine = item.config.stash[ENGINE]
    told = [f"{violation}\n    allowed by {violation.remedy}" for violation in engine.violations()]
    if not told:
        return
    text = "\n".join(told)
    report.user_properties = [*report.user_properties, *((REFUSED, one) for one in told)]
    if wanted == "error" and report.passed:
        report.outcome = "failed"
        report.longrepr = text
    else:
        report.sections = [*report.sections, ("sandbox network", text)]
