"""Where and on what everything is measured, and what several rows say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.rivals import Docker
from benchmarks.table import milliseconds
from pytest_sandbox_runtime.engine import Engine, EngineSettings
from pytest_sandbox_runtime.specs import Image, SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.rivals import Bwrap, Runc


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where and on what everything is measured, and how much of it."""

    where: Path
    tar: Path
    quick: bool
    rivals: Sequence[Bwrap | Runc | Docker]

    @property
    def archive(self) -> SandboxSpec:
        """What is started on the same base as the other runtimes have."""
        return SandboxSpec(image=Image.archive(self.tar))

    def count(self, full: int, quick: int) -> int:
        """Return how often to repeat."""
        return quick if self.quick else full

    def engine(self) -> Engine:
        """Open an engine with a store that goes with the benchmark."""
        return Engine.open(EngineSettings(store=str(self.where / "store")))


def docker_of(bench: Bench) -> Docker | None:
    """Return the Docker that was started, if there is one."""
    return next((rival for rival in bench.rivals if isinstance(rival, Docker)), None)


def who() -> str:
    """Return as whom this runs."""
    return "root" if os.geteuid() == 0 else "an ordinary user"


def live_once(engine: Engine, spec: SandboxSpec) -> None:
    """Make a sandbox that runs one command."""
    with engine.create(spec) as sandbox:
        sandbox.run(["true"], check=True)


def beside(ours: float, others: dict[str, float]) -> str:
    """Return what the others took, and the ratio to each."""
    return ", ".join(f"{name} {milliseconds(theirs)} ({ours / theirs:.3f} x)" for name, theirs in others.items())
