"""Compose files, as texts that are started."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.compose import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_sandbox_runtime import Engine, Image
    from pytest_sandbox_runtime.compose.running import LiveProject

    Up = Callable[..., LiveProject]


@pytest.fixture
def up(engine: Engine, base: Image, tmp_path: Path) -> Iterator[Up]:
    """Start a compose file, in which "base" is an image of busybox; it ends with the test."""
    started: list[LiveProject] = []

    def start(text: str, *, expose: tuple[int, ...] = (), **words: Any) -> LiveProject:
        (tmp_path / "compose.yaml").write_text(textwrap.dedent(text))
        started.append(engine.compose(load(str(tmp_path), environ={}, **words), {"base": base}, expose))
        return started[-1]

    yield start
    for project in started:
        project.close()
