"""An engine, a network, and small programs to be services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Engine, EngineSettings, LiveNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.open(EngineSettings(store=str(tmp_path_factory.mktemp("store")))) as engine:
        yield engine


@pytest.fixture
def network(engine: Engine) -> Iterator[LiveNetwork]:
    with engine.network() as network:
        yield network
