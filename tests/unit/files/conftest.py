"""A sandbox's root and what lies outside of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.files import Files

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the directory that is a sandbox's root in these tests."""
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a directory of the host, with something to keep safe."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_text("the host's")
    return path


@pytest.fixture
def files(root: Path) -> Iterator[Files]:
    """Return the files of the sandbox whose root is ``root``."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield Files(fd)
    os.close(fd)
