"""Sandboxes of a copy of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.engine import Engine, EngineSettings
from pytest_sandbox_runtime.sandbox import Sandbox
from pytest_sandbox_runtime.specs import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.open(EngineSettings(store=str(tmp_path_factory.mktemp("store")))) as engine:
        yield engine


@pytest.fixture
def box(engine: Engine) -> Iterator[Sandbox]:
    with engine.create(SandboxSpec()) as sandbox:
        yield sandbox
