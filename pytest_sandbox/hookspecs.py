"""The hooks that other plugins and conftest files may implement. PYTEST_DONT_REWRITE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_sandbox_runtime.specs import SandboxSpec


@pytest.hookspec(firstresult=True)
def pytest_sandbox_spec(item: pytest.Item, spec: SandboxSpec) -> SandboxSpec | None:
    """Change what a test's sandbox will be, before it starts.

    Return a changed copy, or ``None`` to leave the choice to the next plugin.
    """
