"""Networks, and programs that speak over them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Engine, LiveNetwork, SandboxClosedError, SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_sandbox_runtime import Join, Sandbox
    from pytest_sandbox_runtime.process import Process


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def create(engine: Engine) -> Iterator[Callable[..., Sandbox]]:
    """Make a sandbox on networks, gone after the test."""
    made: list[Sandbox] = []

    def create_one(*networks: LiveNetwork | Join, **words: object) -> Sandbox:
        made.append(engine.create(SandboxSpec(**words), networks))  # type: ignore[arg-type]
        return made[-1]

    yield create_one
    for sandbox in made:
        sandbox.close()


@pytest.fixture
def start(create: Callable[..., Sandbox]) -> Iterator[Callable[[Sandbox, str], Process]]:
    """Start a program of Python in a sandbox, ended before the sandbox."""
    del create  # its sandboxes end behind this
    started: list[Process] = []

    def start_one(sandbox: Sandbox, program: str) -> Process:
        started.append(sandbox.popen(["python3", "-c", program]))
        return started[-1]

    yield start_one
    for process in started:
        with contextlib.suppress(SandboxClosedError):
            process.close()
