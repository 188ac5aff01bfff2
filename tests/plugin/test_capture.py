"""--sandbox-capture: the packets of tests' sandboxes, kept for those that were asked for."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import dpkt
import pytest

from tests.runs import await_runs

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.needs("overlay-on-host", "networks", "python3")

SUITE = """
import socket, subprocess, sys
import pytest
from pytest_sandbox import Service, sandbox_service

TALK = '''
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("127.0.0.1", 7123))
one.sendto(sys.argv[1].encode(), ("127.0.0.1", 7123))
'''
SERVE = '''
import socket
server = socket.create_server(("0.0.0.0", 80))
while True:
    connection, _ = server.accept()
    connection.sendall(b"from " + connection.recv(100))
    connection.close()
'''
db = sandbox_service(Service(command=["python3", "-c", SERVE], ports=[80], name="db"))

def test_driven(sandbox):
    sandbox.run(["python3", "-c", TALK, "driven"], check=True)
    assert False

def test_service(sandbox, db):
    program = "import socket; one = socket.create_connection(('db', 80)); one.sendall(b'me'); one.recv(100)"
    sandbox.run(["python3", "-c", program], check=True)
    assert False

@pytest.mark.sandbox
def test_inside():
    subprocess.run([sys.executable, "-c", TALK, "inside"], check=True)
    assert False

@pytest.mark.sandbox(network="host")
def test_host(sandbox):
    assert False

def test_passes(sandbox):
    sandbox.run(["python3", "-c", TALK, "passes"], check=True)

@pytest.fixture
def told(sandbox):
    yield
    sandbox.run(["python3", "-c", TALK, "torn"], check=True)
    assert False

def test_torn(told):
    pass

@pytest.mark.sandbox
def test_passes_inside():
    pass
"""
FAILED = ["test_driven", "test_inside", "test_service", "test_service", "test_torn"]
NOT_READY = """
from pytest_sandbox import Service, ready, sandbox_service

db = sandbox_service(
    Service(command=["sleep", "inf"], name="db", ready=ready.command(["python3", "-c", '''
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"knock", ("127.0.0.1", 7123))
raise SystemExit(1)''']), timeout=0.5)
)

def test_service(db):
    pass
"""
DIES = """
import os, pytest

@pytest.mark.sandbox
def test_dies():
    os._exit(3)

@pytest.mark.sandbox
def test_never_begins():
    pass
"""
KILLED = """
import os, signal

def test_killed(sandbox):
    program = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'word', ('127.0.0.1', 7123))"
    sandbox.run(["python3", "-c", program], check=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def shown(result: pytest.RunResult) -> list[tuple[str, str]]:
    """Return what the summary says: tests, and the files of each."""
    lines = [line.partition(": ") for line in result.outlines if line.endswith(".pcap")]
    return sorted((test.rpartition("::")[2], path) for test, _, path in lines)


def words(path: str) -> bytes:
    with open(path, "rb") as file:
        frames = [dpkt.ethernet.Ethernet(data) for _, data in dpkt.pcap.Reader(file)]
    return b"".join(bytes(frame.data.data.data) for frame in frames if isinstance(frame.data, dpkt.ip.IP))


def files_of(runs: Path) -> list[str]:
    return sorted(str(path) for path in (runs.parent / "captures").glob("*/*"))


@pytest.mark.parametrize("distributed", [(), ("-n", "2")], ids=["alone", "workers"])
def test_those_of_failed_tests_are_kept_and_named(run: Run, runs: Path, distributed: tuple[str, ...]) -> None:
    result = run(SUITE, "--sandbox-capture=failed", *distributed)
    result.assert_outcomes(passed=3, failed=4, errors=1)
    result.stdout.fnmatch_lines(["*= captured packets =*"])
    told = shown(result)
    assert [test for test, _ in told] == FAILED
    assert files_of(runs) == sorted(path for _, path in told)
    said = {os.path.basename(path).rpartition("-")[0]: words(path) for _, path in told}
    assert said["test_driven-sandbox"] == b"driven"
    assert said["test_inside-sandbox"] == b"inside"
    assert said["test_torn-sandbox"] == b"torn"
    assert b"from me" in said["test_service-db"]
    assert b"from me" in said["test_service-sandbox"]


def test_all_are_kept_where_that_is_asked_for(run: Run, runs: Path) -> None:
    told = shown(run(SUITE, "-o", "sandbox_capture=all"))
    assert [test for test, _ in told] == sorted([*FAILED, "test_passes", "test_passes_inside"])
    assert files_of(runs) == sorted(path for _, path in told)


def test_none_are_kept_by_default_and_of_what_has_passed(run: Run, runs: Path) -> None:
    assert shown(run(SUITE)) == []
    assert not (runs.parent / "captures").exists()
    result = run(SUITE, "--sandbox-capture=failed", "-k", "passes")
    result.assert_outcomes(passed=2, deselected=5)
    assert list((runs.parent / "captures").iterdir()) == []


def test_what_was_sent_to_a_service_that_was_not_ready_is_kept(run: Run) -> None:
    result = run(NOT_READY, "--sandbox-capture=failed")
    result.assert_outcomes(errors=1)
    ((test, path),) = shown(result)
    assert test == "test_service"
    assert words(path).startswith(b"knock")


def test_a_test_inside_that_dies_is_kept_and_one_that_never_begins_is_not(run: Run, runs: Path) -> None:
    result = run(DIES, "--sandbox-capture=all", "-x")
    result.assert_outcomes(failed=1)
    ((test, path),) = shown(result)
    assert test == "test_dies"
    assert files_of(runs) == [path]


def test_what_a_killed_run_has_captured_is_there(run: Run, runs: Path) -> None:
    assert run(KILLED, "--sandbox-capture=failed").ret == -signal.SIGKILL
    await_runs(runs.parent)
    (path,) = files_of(runs)
    assert words(path).startswith(b"word")
    # The next run removes the directory of this one.
    run("def test_next(sandbox):\n    pass")


def test_those_of_the_last_three_runs_are_kept(run: Run, runs: Path) -> None:
    paths = []
    for _ in range(4):
        ((_, path),) = shown(run(SUITE, "--sandbox-capture=failed", "-k", "driven"))
        paths.append(path)
    assert files_of(runs) == sorted(paths[1:])


def test_a_word_that_is_none_is_refused(run: Run) -> None:
    result = run(SUITE, "-o", "sandbox_capture=some")
    result.stderr.fnmatch_lines(["*sandbox_capture = 'some' is none of none, failed, all"])
