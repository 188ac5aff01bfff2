"""Sudden death, at moments nobody chose: what is left of a run whose client, supervisor or init was killed."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.capabilities import missing
from pytest_sandbox_runtime.engine import Engine, EngineSettings
from pytest_sandbox_runtime.specs import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(missing()), reason="no sandbox can be made here")

MOMENTS = range(10)
GRACE = 1.0
# How deep below the run's own namespace a process's pid namespace lies, by what it is.
SUPERVISOR, INIT = 2, 3
# A few sandboxes live on, with a command each, while one after the other is made and closed: it says what it does.
CLIENT = """
import os, sys
from pytest_sandbox_runtime.engine import Engine, EngineSettings
from pytest_sandbox_runtime.specs import SandboxSpec

engine = Engine.open(EngineSettings(store=os.environ["STORE"]))
print("opened", flush=True)
kept = []
for number in range(100_000):
    print("creating", flush=True)
    try:
        sandbox = engine.create(SandboxSpec())
        running = sandbox.popen(["sleep", "1000"])
    except Exception:
        # Its supervisor or init was killed: it stays alive, so that nothing else ends because of it.
        print("refused", flush=True)
        sys.stdin.read()
        os._exit(0)
    print("created", flush=True)
    if number < 3:
        kept.append((sandbox, running))
    else:
        running.close()
        sandbox.close()
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def client(store: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with an engine that never stops making sandboxes."""
    # Its packages come from where this process has them.
    env = {**os.environ, "STORE": str(store), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", CLIENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, bufsize=0) as process:
        try:
            yield process
        finally:
            process.kill()


def read_words(client: subprocess.Popen[bytes], count: int) -> None:
    assert client.stdout is not None
    for _ in range(count):
        assert client.stdout.readline()


def reach_a_moment(client: subprocess.Popen[bytes], chance: random.Random, *, at_least: int) -> None:
    """Return at some moment after the client's word number ``at_least``; most are in the middle of something."""
    read_words(client, at_least + chance.randrange(12))
    pidfd = os.pidfd_open(client.pid)
    try:
        wait_for_ends([pidfd], chance.random() * 0.01)
    finally:
        os.close(pidfd)


def processes_of(store: Path) -> dict[int, int]:
    """Return the processes of the runs in ``store``, and how many pid namespaces deep each is."""
    found = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                is_ours = os.fsencode(store) in file.read()
            with open(f"/proc/{pid}/status", encoding="utf-8") as file:
                depth = next(len(line.split()) - 1 for line in file if line.startswith("NSpid:"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if is_ours:
            found[pid] = depth
    return found


def below(pid: int) -> set[int]:
    """Return ``pid`` and all its descendants."""
    found, unread = set(), [pid]
    while unread:
        one = unread.pop()
        found.add(one)
        try:
            with open(f"/proc/{one}/task/{one}/children", encoding="ascii") as file:
                unread.extend(int(child) for child in file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def open_pidfds(pids: Iterable[int], undo: ExitStack) -> list[int]:
    pidfds = []
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        undo.callback(os.close, pidfd)
        pidfds.append(pidfd)
    return pidfds


def wait_for_ends(pidfds: list[int], timeout: float) -> bool:
    """Return whether all of ``pidfds`` have ended within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    left = set(pidfds)
    while left:
        ended = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ended:
            return False
        for pidfd, _ in ended:
            poll.unregister(pidfd)
            left.discard(pidfd)
    return True


def assert_all_end(store: Path, known: list[int]) -> None:
    """Wait for ``known`` and for whatever was being born as the kill struck."""
    deadline = time.monotonic() + GRACE
    assert wait_for_ends(known, GRACE), f"still alive: {processes_of(store)}"
    while born := processes_of(store):
        with ExitStack() as undo:
            in_time = wait_for_ends(open_pidfds(born, undo), deadline - time.monotonic())
        assert in_time, f"still alive: {born}"


def assert_next_run_tidies(store: Path) -> None:
    with Engine.open(EngineSettings(store=str(store))) as engine, engine.create(SandboxSpec()) as sandbox:
        assert sandbox.run(["true"]).returncode == 0
    assert os.listdir(store / "runs") == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_outlives_a_killed_client(client: subprocess.Popen[bytes], store: Path, moment: int) -> None:
    # From the very start on, with or without a supervisor.
    reach_a_moment(client, random.Random(moment), at_least=0)
    with ExitStack() as undo:
        known = open_pidfds(below(client.pid), undo)
        client.kill()
        assert_all_end(store, known)
    assert_next_run_tidies(store)


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_outlives_a_killed_supervisor(client: subprocess.Popen[bytes], store: Path, moment: int) -> None:
    chance = random.Random(100 + moment)
    reach_a_moment(client, chance, at_least=1)
    with ExitStack() as undo:
        # The launcher and the supervisor, the eldest: younger ones of that depth are forks that remove directories.
        supervisors = sorted(pid for pid, depth in processes_of(store).items() if depth <= SUPERVISOR)[:2]
        known = open_pidfds(below(client.pid) - {client.pid}, undo)
        os.kill(chance.choice(supervisors), signal.SIGKILL)
        assert_all_end(store, known)
    assert client.poll() is None
    client.kill()
    assert_next_run_tidies(store)


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_outlives_a_killed_init(client: subprocess.Popen[bytes], store: Path, moment: int) -> None:
    chance = random.Random(200 + moment)
    reach_a_moment(client, chance, at_least=9)
    with ExitStack() as undo:
        inits = sorted(pid for pid, depth in processes_of(store).items() if depth == INIT)
        victim = chance.choice(inits)
        in_it = open_pidfds(below(victim), undo)
        with suppress(ProcessLookupError):  # its client may have been quicker
            os.kill(victim, signal.SIGKILL)
        assert wait_for_ends(in_it, GRACE)
        known = open_pidfds(below(client.pid), undo)
        client.kill()
        assert_all_end(store, known)
    assert_next_run_tidies(store)
