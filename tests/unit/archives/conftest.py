"""A store for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "store")) as store:
        yield store
