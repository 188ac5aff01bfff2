"""Connections and look-ups that a test's sandboxes were refused: told with its report. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import pytest

from pytest_sandbox.fixtures import ENGINE, REFUSED
from pytest_sandbox.settings import SETTINGS

_TOLD = pytest.StashKey["list[str]"]()


def tell(item: pytest.Item, report: pytest.TestReport) -> None:
    """Let ``report`` say what was refused since the last one, and, if the settings say so, fail for it."""
    wanted = item.config.stash[SETTINGS].violations
    if wanted == "ignore":
        return
    engine = item.config.stash[ENGINE]
    told = [f"{violation}\n    allowed by {violation.remedy}" for violation in engine.violations()]
    so_far = item.stash.setdefault(_TOLD, [])
    so_far += told
    if told or report.when == "teardown":
        # JUnit has what the last report of a test says, and nothing of the others.
        report.user_properties = [*report.user_properties, *((REFUSED, one) for one in so_far)]
    if not told:
        return
    text = "\n".join(told)
    if wanted == "error" and report.passed:
        report.outcome = "failed"
        report.longrepr = text
    else:
        report.sections = [*report.sections, ("sandbox network", text)]
