"""Images that are built: by the command, beside ``docker build`` of the same Dockerfile, and resolved by an engine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.clock import check
from pytest_sandbox_runtime.engine import Engine, EngineSettings
from pytest_sandbox_runtime.images.building.builder import Builder
from pytest_sandbox_runtime.specs import Image

if TYPE_CHECKING:
    from pathlib import Path

# What Docker's client imports the base as; ours has it by the same name.
BASE = "bench"
_MAIN = "import sys; from pytest_sandbox.cli import main; sys.exit(main())"


def write_dockerfile(where: Path, steps: int, *, label: str = "") -> Path:
    """Return a folder whose Dockerfile has ``steps`` steps that run next to nothing, over the base."""
    where.mkdir(exist_ok=True)
    lines = [f"FROM {BASE}", *(f"RUN true {label}{number}" for number in range(steps))]
    (where / "Dockerfile").write_text("\n".join(lines) + "\n")
    return where


def add_base(tar: Path, store: Path) -> None:
    """Give our own store the base that Docker has imported."""
    with Engine.open(EngineSettings(store=str(store))) as engine:
        engine.images.build(Image.archive(tar), tag=BASE)


def time_of_docker(client: tuple[str, ...], folder: Path) -> float:
    """Return the seconds of one ``docker build``."""
    began = time.perf_counter()
    check((*client, "build", "--quiet", "--network=none", str(folder)))
    return time.perf_counter() - began


def time_of_ours(folder: Path, store: Path) -> float:
    """Return the seconds of one ``pytest-sandbox build``."""
    environment = {**os.environ, "PYTEST_SANDBOX_HOME": str(store)}
    # As an installed package is: compiled.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    done = subprocess.run(
        (sys.executable, "-c", _MAIN, "build", str(folder)), env=environment, check=False, capture_output=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"pytest-sandbox build {folder} ended with {done.returncode}: {done.stderr.decode()}")
    return seconds


def layered(tar: Path, count: int) -> Image:
    """Return an image of ``count`` layers, the base's among them."""
    image = Image.archive(tar)
    for number in range(count - 1):
        image = image.file(f"/layer{number}", b"x")
    return image


def times_of_resolving(engine: Engine, image: Image, count: int) -> list[float]:
    """Return the seconds that each of ``count`` builders takes to find all layers of ``image``, which are there."""
    Builder(engine).chain(image)
    times = []
    for _ in range(count):
        builder = Builder(engine)
        began = time.perf_counter()
        builder.chain(image)
        times.append(time.perf_counter() - began)
    return times
