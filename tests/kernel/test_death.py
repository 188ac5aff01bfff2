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

from pytest_sandbox_runtime.engine import Engine, EngineSettings
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl
from pytest_sandbox_runtime.specs import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("overlay-on-host", "networks")

# 100 deaths: of clients, of pytests with tests inside, of supervisors and of inits.
CLIENTS, PYTESTS, SUPERVISORS, INITS = range(32), range(8), range(30), range(30)
GRACE = 1.0
# How deep below the run's own namespace a process's pid namespace lies, by what it is.
SUPERVISOR, INIT = 2, 3
# A few sandboxes live on, with a command and a network each, while one after the other is made and closed: it says what it does.
CLIENT = """
import os, sys
from pytest_sandbox_runtime.capabilities import limits_not_enforced
from pytest_sandbox_runtime.engine import Engine, EngineSettings
from pytest_sandbox_runtime.specs import SandboxSpec

spec = SandboxSpec(pids=None if "pids" in limits_not_enforced() else 50)
engine = Engine.open(EngineSettings(store=os.environ["PYTEST_SANDBOX_HOME"]))
print("opened", flush=True)
kept = []
lasting = None
for number in range(100_000):
    print("creating", flush=True)
    try:
        # With a bridge, a resolver and a process that forwards, for ever; and with another bridge each time.
        if lasting is None:
            lasting = engine.network()
            lasting.expose("api.example.org", 9)
        network = engine.network()
        sandbox = engine.create(spec, [lasting.join(f"n{number}"), network])
        running = sandbox.popen(["sleep", "1000"])
    except Exception:
        # Its supervisor or init was killed: it stays alive, so that nothing else ends because of it.
        print("refused", flush=True)
        sys.stdin.read()
        os._exit(0)
    print("created", flush=True)
    if number < 3:
        kept.append((sandbox, running, network))
    else:
        running.close()
        sandbox.close()
        network.close()
"""
SUITE = """
import subprocess, time
import pytest

kept = []

def test_beside(sandbox_factory):
    kept.append(sandbox_factory().popen(["sleep", "1000"]))

@pytest.mark.sandbox
@pytest.mark.parametrize("turn", range(1000))
def test_inside(turn):
    subprocess.Popen(["sleep", "1000"])
    print("inside", flush=True)
"""


@pytest.fixture(autouse=True)
def reaper() -> Iterator[None]:
    """Be to orphans what PID 1 is: a pid namespace lasts until all in it are reaped, and some PID 1s take seconds."""

    def reap(*_: object) -> None:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass

    before = signal.signal(signal.SIGCHLD, reap)
    prctl(Prctl.SET_CHILD_SUBREAPER, 1)
    yield
    prctl(Prctl.SET_CHILD_SUBREAPER, 0)
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def launch(command: list[str], store: Path) -> subprocess.Popen[bytes]:
    # Its packages come from where this process has them.
    path = os.pathsep.join(path for path in sys.path if path)
    env = {**os.environ, "PYTEST_SANDBOX_HOME": str(store), "PYTHONPATH": path}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, bufsize=0)


@pytest.fixture
def client(store: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with an engine that never stops making sandboxes."""
    with launch([sys.executable, "-c", CLIENT], store) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def suite(store: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A pytest that never stops running tests inside, with a sandbox beside them."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    options = ["-s", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    with launch([sys.executable, "-m", "pytest", *options, str(tmp_path / "test_suite.py")], store) as process:
        try:
            yield process
        finally:
            process.kill()


class Traces:
    """What a run may leave besides processes and directories: what the host has of it, before and after."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._before = host_mounts(), network_devices()
        self._runs: set[str] = set()
        self._held: set[tuple[int, str]] = set()

    def note(self, pids: Collection[int], others: Iterable[int] = ()) -> None:
        """Remember what ``pids``, about to die, have, and who on this host holds what only they are in: namespaces."""
        self._runs |= set(os.listdir(self._store / "runs")) if (self._store / "runs").exists() else set()
        namespaces = set().union(*map(namespaces_of, pids)).difference(*map(namespaces_of, (os.getpid(), *others)))
        held = {(pid, link) for pid in all_pids() for link in namespaces_of(pid) & namespaces}
        # Who has died meanwhile has left its numbers to others.
        still = set().union(*map(namespaces_of, pids))
        self._held |= {(pid, link) for pid, link in held if link in still}

    def groups(self) -> list[str]:
        """Return the directories of the run's control groups."""
        folders = (folder for folder, _, _ in os.walk("/sys/fs/cgroup"))
        return [folder for folder in folders if any(run in folder for run in self._runs)]

    def assert_none(self) -> None:
        """Fail where the host has anything of the run, but for groups."""
        mounts, devices = self._before
        assert host_mounts() - mounts == set()
        assert network_devices() - devices == set()
        # The kernel gives the number of a namespace that is gone to the next: only who held it says whose it is.
        assert {(pid, link) for pid, _ in self._held for link in namespaces_of(pid)} & self._held == set()


def host_mounts() -> set[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return set(file)


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def network_devices() -> set[str]:
    return set(os.listdir("/sys/class/net"))


def members_of(group: str) -> list[str]:
    with open(f"{group}/cgroup.procs", encoding="ascii") as file:
        return file.read().split()


def namespaces_of(pid: int) -> set[str]:
    """Return the namespaces that ``pid`` is in or holds open."""
    found = set()
    with suppress(OSError):  # it may be gone, or another user's
        os.readlink(f"/proc/{pid}/ns/mnt")  # not to be had of a zombie, which has let go of all but its number
        for folder in (f"/proc/{pid}/ns", f"/proc/{pid}/fd"):
            # What the next child will be in is in flux while a supervisor forks.
            for name in (name for name in os.listdir(folder) if not name.endswith("_for_children")):
                with suppress(OSError):
                    found.add(os.readlink(f"{folder}/{name}"))
    kinds = ("mnt:[", "pid:[", "net:[", "uts:[", "ipc:[", "user:[", "cgroup:[", "time:[")
    return {link for link in found if link.startswith(kinds)}


def read_words(client: subprocess.Popen[bytes], count: int) -> None:
    assert client.stdout is not None
    for _ in range(count):
        assert client.stdout.readline()


def read_to(client: subprocess.Popen[bytes], word: bytes) -> None:
    assert client.stdout is not None
    assert any(word in line for line in client.stdout), "it ended before it said so"


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
    for pid in all_pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                is_ours = os.fsencode(store.parent) in file.read()
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


def assert_next_run_tidies(store: Path, traces: Traces) -> None:
    with Engine.open(EngineSettings(store=str(store))) as engine, engine.create(SandboxSpec()) as sandbox:
        assert sandbox.run(["true"]).returncode == 0
    assert os.listdir(store / "runs") == []
    assert traces.groups() == []


def assert_nothing_outlives(victim: int, run: int, store: Path, traces: Traces) -> None:
    """Kill ``victim``; all below ``run`` must end, with all that the kernel has of it."""
    with ExitStack() as undo:
        members = below(run)
        traces.note(members)
        known = open_pidfds(members if victim == run else members - {run}, undo)
        os.kill(victim, signal.SIGKILL)
        assert_all_end(store, known)
    traces.assert_none()


@pytest.mark.parametrize("moment", CLIENTS)
def test_nothing_outlives_a_killed_client(client: subprocess.Popen[bytes], store: Path, moment: int) -> None:
    traces = Traces(store)
    # From the very start on, with or without a supervisor.
    reach_a_moment(client, random.Random(moment), at_least=0)
    assert_nothing_outlives(client.pid, client.pid, store, traces)
    assert traces.groups() == []
    assert_next_run_tidies(store, traces)


@pytest.mark.parametrize("moment", PYTESTS)
def test_nothing_outlives_a_killed_pytest(suite: subprocess.Popen[bytes], store: Path, moment: int) -> None:
    traces = Traces(store)
    read_to(suite, b"inside")
    reach_a_moment(suite, random.Random(300 + moment), at_least=0)
    assert_nothing_outlives(suite.pid, suite.pid, store, traces)
    assert_next_run_tidies(store, traces)


@pytest.mark.parametrize("moment", SUPERVISORS)
def test_nothing_outlives_a_killed_supervisor(client: subprocess.Popen[bytes], store: Path, moment: int) -> None:
    traces, chance = Traces(store), random.Random(100 + moment)
    reach_a_moment(client, chance, at_least=1)
    # The launcher and the supervisor, the eldest: younger ones of that depth are forks that remove directories.
    supervisors = sorted(pid for pid, depth in processes_of(store).items() if depth <= SUPERVISOR)[:2]
    assert_nothing_outlives(chance.choice(supervisors), client.pid, store, traces)
    assert client.poll() is None
    # They wait for the next run, and hold nobody.
    assert all(members_of(group) == [] for group in traces.groups())
    client.kill()
    assert_next_run_tidies(store, traces)


@pytest.mark.parametrize("moment", INITS)
def test_nothing_outlives_a_killed_init(client: subprocess.Popen[bytes], store: Path, moment: int) -> None:
    traces, chance = Traces(store), random.Random(200 + moment)
    reach_a_moment(client, chance, at_least=9)
    inits = sorted(pid for pid, depth in processes_of(store).items() if depth == INIT)
    victim = chance.choice(inits)
    with ExitStack() as undo:
        in_it = open_pidfds(below(victim), undo)
        # One that has just been forked is still in its supervisor's.
        traces.note(below(victim), below(client.pid) - below(victim))
        with suppress(ProcessLookupError):  # its client may have been quicker
            os.kill(victim, signal.SIGKILL)
        assert wait_for_ends(in_it, GRACE)
    traces.assert_none()
    assert_nothing_outlives(client.pid, client.pid, store, traces)
    assert traces.groups() == []
    assert_next_run_tidies(store, traces)
