"""Terminals, ends, limits and other bases of sandboxes."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.command import PATH
from pytest_sandbox_runtime.engine import Engine, EngineSettings
from pytest_sandbox_runtime.errors import (
    ImageError,
    SandboxClosedError,
)
from pytest_sandbox_runtime.sandbox import Sandbox
from pytest_sandbox_runtime.specs import Image, SandboxSpec

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.needs("overlay-on-host")

MIB = 1 << 20
needs_python = pytest.mark.needs("python3")


@pytest.fixture(scope="module")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of one static busybox."""
    busybox = shutil.which("busybox", path=PATH)
    assert busybox is not None
    root = tmp_path_factory.mktemp("small")
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "run"):
        (root / name).mkdir()
    shutil.copy2(busybox, root / "bin/busybox")
    for name in ("sh", "cat", "ls", "echo", "id"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return root


def printed(box: Sandbox, command: str | list[str]) -> str:
    return str(box.run(command, check=True).stdout)


def kill_and_await(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        assert select.select([pidfd], [], [], 10)[0]
    finally:
        os.close(pidfd)


# Terminals


def test_a_terminal_echoes_and_has_its_size(box: Sandbox) -> None:
    with box.pty(["sh"], rows=40, columns=100) as terminal:
        terminal.write(b"stty size; tty\n")
        terminal.read_until(b"40 100", 30)
        terminal.read_until(b"/dev/pts/", 30)
        terminal.resize(50, 120)
        terminal.write(b"stty size\n")
        terminal.read_until(b"50 120", 30)
        terminal.write(b"exit 4\n")
        assert terminal.wait(30) == 4


def test_what_is_typed_is_echoed(box: Sandbox) -> None:
    with box.pty(["cat"]) as terminal:
        terminal.write(b"typed\n")
        assert terminal.read_until(b"typed\r\ntyped\r\n", 30)
        terminal.write(b"\x04")
        assert terminal.wait(30) == 0


def test_ctrl_c_reaches_the_command(box: Sandbox) -> None:
    with box.pty("trap 'echo caught; exit 7' INT; cat") as terminal:
        # Once cat has answered, it is the one that the signal meets, and no half-born fork of the shell.
        terminal.write(b"typed\n")
        terminal.read_until(b"typed\r\ntyped\r\n", 30)
        terminal.write(b"\x03")
        terminal.read_until(b"caught", 30)
        assert terminal.wait(30) == 7


def test_closing_a_terminal_ends_the_command(box: Sandbox) -> None:
    with box.pty(["sleep", "1000"]) as terminal:
        pass
    assert terminal.process.returncode is not None
    terminal.close()


# Ends


def test_a_closed_sandbox_says_so(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as sandbox:
        pass
    sandbox.close()
    assert repr(sandbox).endswith("of the host closed>")
    with pytest.raises(SandboxClosedError, match=f"sandbox {sandbox.name} was closed"):
        sandbox.run(["true"])
    with pytest.raises(SandboxClosedError):
        sandbox.read_text("/etc/passwd")
    with pytest.raises(SandboxClosedError):
        sandbox.changes()
    with pytest.raises(SandboxClosedError):
        sandbox.connect(80)


def test_closing_ends_all_that_runs(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as sandbox:
        process = sandbox.popen(["sleep", "1000"])
    assert process.wait(30) == -signal.SIGKILL
    process.close()


def test_a_sandbox_whose_init_was_killed_says_so(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as sandbox:
        process = sandbox.popen(["sleep", "1000"])
        kill_and_await(sandbox.pid)
        with pytest.raises(SandboxClosedError, match=f"sandbox {sandbox.name} has died: its init was killed"):
            sandbox.run(["true"])
        assert process.wait(30) == -signal.SIGKILL
        process.close()


def test_init_cannot_be_killed_from_inside(box: Sandbox) -> None:
    box.run("kill -9 1; kill -TERM 1")
    assert printed(box, ["echo", "alive"]) == "alive\n"


def test_an_engine_that_is_closed_twice_leaves_no_run(tmp_path: Path) -> None:
    engine = Engine.open(EngineSettings(store=str(tmp_path)))
    engine.close()
    engine.close()
    assert repr(engine).endswith("closed>")
    assert os.listdir(tmp_path / "runs") == []


# Limits


HUNGRY = "import sys; kept = [bytearray(b'x') * (1 << 20) for _ in range(512)]"
FORKS = """
import os, signal
pids = []
try:
    while len(pids) < 200:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
except BlockingIOError:
    print("full", len(pids))
"""


@needs_python
@pytest.mark.needs("cgroup-memory")
def test_running_out_of_memory_is_told_apart_from_other_kills(engine: Engine) -> None:
    with engine.create(SandboxSpec(memory="64M")) as sandbox:
        killed = sandbox.run("kill -9 $$")
        assert (killed.returncode, killed.oom_killed) == (-signal.SIGKILL, False)
        starved = sandbox.run(["python3", "-c", HUNGRY], timeout=30)
        assert (starved.returncode, starved.oom_killed) == (-signal.SIGKILL, True)
        assert "was killed by the kernel, out of memory" in str(starved)
        assert printed(sandbox, ["echo", "alive"]) == "alive\n"


@needs_python
@pytest.mark.needs("cgroup-pids")
def test_there_are_no_more_processes_than_allowed(engine: Engine) -> None:
    with engine.create(SandboxSpec(pids=20)) as sandbox:
        said, number = printed(sandbox, ["python3", "-c", FORKS]).split()
    assert said == "full"
    assert int(number) < 20


# Where no group can be written to: another file system lies over them all.
WITHOUT_GROUPS = """
import os, sys
from pytest_sandbox_runtime import Engine, EngineSettings, SandboxSpec, UnsupportedError
from pytest_sandbox_runtime.capabilities import is_privileged
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.supervisor.identities import map_identities
if not is_privileged():
    map_identities("")
unshare(CloneFlag.NEWNS)
mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)
mount("tmpfs", "/sys/fs/cgroup", "tmpfs")
limits = {"memory": 64 << 20, "cpus": 0.5, "pids": 20}
for name, amount in limits.items():
    for best_effort in (False, True):
        with Engine.open(EngineSettings(store=sys.argv[1], best_effort_limits=best_effort)) as engine:
            try:
                with engine.create(SandboxSpec(**{name: amount})) as sandbox:
                    print(sandbox.run(["echo", name], check=True).stdout, end="")
            except UnsupportedError as error:
                print(f"{error.message} / {error.hint}")
"""


def test_a_limit_that_cannot_be_enforced_is_an_error_unless_best_effort_will_do(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_GROUPS, str(tmp_path / "store")]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    for name, amount, line in zip(("memory", "cpus", "pids"), (64 * MIB, 0.5, 20), lines[::2], strict=True):
        assert line.startswith(f"{name}={amount} cannot be enforced on this host: ")
        assert line.endswith("or set sandbox_limits = best-effort")
    assert lines[1::2] == ["memory", "cpus", "pids"]


def test_stats_count_the_sandboxs_processes(box: Sandbox) -> None:
    with box.popen("echo ready; sleep 1000 & sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        stats = box.stats()
    assert stats.memory is not None
    assert stats.memory > 0


# Other bases


@pytest.mark.needs("static-busybox")
def test_a_directory_is_a_base(engine: Engine, small_root: Path) -> None:
    with engine.create(SandboxSpec(image=Image.archive(small_root))) as sandbox:
        assert printed(sandbox, ["id", "-u"]) == "0\n"
        sandbox.run("echo new > /etc/new; echo changed >> /etc/passwd", check=True)
        changes = sandbox.changes()
    assert "/etc/new" in changes.added
    assert "/etc/passwd" in changes.modified
    assert not (small_root / "etc/new").exists()
    assert (small_root / "etc/passwd").read_text() == "root:x:0:0:root:/root:/bin/sh\n"


def test_what_is_no_base_is_an_error(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="missing.tar"):
        engine.create(SandboxSpec(image=Image.archive(tmp_path / "missing.tar")))
