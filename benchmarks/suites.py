"""Generated test suites, run by pytest in a process of their own, timed test by test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CONFTEST = """\
import json, os, time
import pytest

times = []


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        times.append(time.perf_counter() - began)


def pytest_sessionfinish(session):
    with open(os.environ["BENCHMARK_TIMES"], "w") as file:
        json.dump(times, file)
"""
PLAIN = "def test_{}():\n    pass\n\n\n"
FIXTURE = 'def test_{}(sandbox):\n    assert sandbox.run(["true"]).returncode == 0\n\n\n'


def times_of_suite(where: Path, body: str, count: int, *options: str) -> list[float]:
    """Return the seconds that each of ``count`` tests took from its set-up to its teardown, all of them passed."""
    where.mkdir()
    (where / "conftest.py").write_text(_CONFTEST)
    (where / "pytest.ini").write_text("[pytest]\n")
    (where / "test_generated.py").write_text("".join(body.format(number) for number in range(count)))
    times = where / "times.json"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(where)]
    environment = {**os.environ, "BENCHMARK_TIMES": str(times)}
    done = subprocess.run(argv, cwd=where, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"a generated suite failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
    return list(map(float, json.loads(times.read_text())))
