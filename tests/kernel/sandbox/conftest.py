"""Sandboxes of a copy of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.engine import Engine
from pytest_sandbox_runtime.sandbox import Sandbox
from pytest_sandbox_runtime.specs import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def box(engine: Engine) -> Iterator[Sandbox]:
    with engine.create(SandboxSpec()) as sandbox:
        yield sandbox
