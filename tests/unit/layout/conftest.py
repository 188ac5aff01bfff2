"""An empty layout, and a lease on what is put into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.images.layout import Layout
from pytest_sandbox_runtime.images.leases import Leases

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_sandbox_runtime.images.leases import Lease


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    (tmp_path / "leases").mkdir()
    return Leases(str(tmp_path / "leases"))


@pytest.fixture
def lease(leases: Leases) -> Lease:
    return leases.take()


@pytest.fixture
def layout(tmp_path: Path, leases: Leases) -> Layout:
    return Layout(str(tmp_path / "images"), str(tmp_path / "index.lock"), leases)
