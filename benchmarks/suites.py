"""Generated test suites, run by pytest in a process of their own, timed test by test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_TIMES = "times.json"
# A test has ended when its last report is there, wherever it has run.
_CONFTEST = """\
import json, os, time
import pytest

ends = []


def pytest_runtest_logreport(report):
    if report.when == "teardown":
        ends.append(time.perf_counter())


def pytest_sessionfinish(session):
    with open(os.environ["BENCHMARK_TIMES"], "w") as file:
        json.dump([end - begin for begin, end in zip(ends, ends[1:])], file)
"""
# What there is to beat: each test in a fork of this process, whose reports come back pickled.
FORKING = (
    _CONFTEST
    + """
import pickle
from _pytest.runner import runtestprotocol


@pytest.hookimpl(tryfirst=True, specname="pytest_runtest_protocol")
def pytest_runtest_protocol_in_a_fork(item, nextitem):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open(writing, "wb") as file:
            pickle.dump(runtestprotocol(item, log=False), file)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        reports = pickle.load(file)
    os.waitpid(pid, 0)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""
)
PLAIN = "def test_{}():\n    pass\n\n\n"
# A fiftieth of a second of the processor's time.
WORKING = """
def test_{}():
    import time
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass
"""
# As long of waiting, as for a server: what is measured is what goes on beside it.
WAITING = """
def test_{}():
    import time
    time.sleep(0.02)
"""
FIXTURE = 'def test_{}(sandbox):\n    assert sandbox.run(["true"]).returncode == 0\n\n\n'


def times_of_suite(where: Path, body: str, count: int, *options: str, conftest: str = _CONFTEST) -> list[float]:
    """Return the seconds that each of ``count`` tests took after the one before it, but for the first; all passed."""
    write_suite(where, body, count, conftest)
    run_suite(where, *options)
    return list(map(float, json.loads((where / _TIMES).read_text())))


def write_suite(where: Path, body: str, count: int, conftest: str = _CONFTEST) -> None:
    """Write a suite of ``count`` tests."""
    where.mkdir()
    (where / "conftest.py").write_text(conftest)
    (where / "pytest.ini").write_text("[pytest]\n")
    (where / "test_generated.py").write_text("".join(body.format(number) for number in range(count)))


def run_suite(where: Path, *options: str) -> None:
    """Run it; a test that fails ends the benchmark."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(where)]
    environment = {**os.environ, "BENCHMARK_TIMES": str(where / _TIMES)}
    done = subprocess.run(argv, cwd=where, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"a generated suite failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
