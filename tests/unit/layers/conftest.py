"""Directories for layers: where one is applied, several one over the other, and those that one is written from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.layers.applied import Layers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(tmp_path)


@pytest.fixture
def upper(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "upper"
    before = os.umask(0o022)
    path.mkdir()
    yield path
    os.umask(before)


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    path = tmp_path / "lower"
    path.mkdir()
    return path
