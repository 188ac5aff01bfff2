"""Limits, end to end, and what is left of them when the supervisor is killed."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from pytest_sandbox_runtime import Engine, EngineSettings, SandboxSpec


@pytest.mark.needs("cgroup-memory")
def test_a_killed_supervisors_groups_go_with_the_next_run(tmp_path: Path) -> None:
    settings = EngineSettings(store=str(tmp_path / "store"))
    engine = Engine.open(settings)
    sandbox = engine.create(SandboxSpec(memory="64M"))
    init = sandbox.pid
    lines = Path(f"/proc/{init}/cgroup").read_text().splitlines()
    group = next(line.rpartition(":")[2] for line in lines if ":memory:" in line or line.startswith("0::"))
    name = os.path.basename(group)
    assert name != ""
    supervisor = int(Path(f"/proc/{init}/status").read_text().split("PPid:")[1].split()[0])
    pidfd = os.pidfd_open(init)
    os.kill(supervisor, signal.SIGKILL)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(1000), "init outlived its supervisor"
    os.close(pidfd)
    sandbox.close()
    engine.close()
    run = group.split("/")[-2]
    assert list(Path("/sys/fs/cgroup").rglob(run)) != []
    with Engine.open(settings):
        pass
    assert list(Path("/sys/fs/cgroup").rglob(run)) == []
