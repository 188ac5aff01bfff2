"""Networks with the internet. It is not asked here: what stands for it is this machine's loopback device."""

from __future__ import annotations

import os
import select
import shutil
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Engine, EngineSettings, Network, SandboxSpec, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_sandbox_runtime import Sandbox

pytestmark = pytest.mark.needs("overlay-on-host", "networks", "python3", "slirp4netns")

ASK = "import socket, sys; c = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); print(c.recv(9).decode())"


@pytest.fixture
def server() -> Callable[[], int]:
    """Answer one connection on this machine; returns the port."""

    def serve() -> int:
        listener = socket.create_server(("127.0.0.1", 0))

        def answer() -> None:
            with listener:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"outside")

        threading.Thread(target=answer, daemon=True).start()
        return int(listener.getsockname()[1])

    return serve


@pytest.fixture
def loopback_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have slirp4netns lead to this machine's loopback device, which it otherwise refuses."""
    real = shutil.which("slirp4netns")
    wrapper = tmp_path / "slirp4netns"
    wrapper.write_text(
        '#!/bin/bash\nfor word; do [ "$word" = --disable-host-loopback ] || words+=("$word"); done\n'
        f'exec {real} "${{words[@]}}"\n'
    )
    wrapper.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def ask(sandbox: Sandbox, port: int) -> str:
    outcome = sandbox.run(["python3", "-c", ASK, "10.77.0.2", str(port)], timeout=10)
    return str(outcome.stdout).strip() or str(outcome.stderr).strip().splitlines()[-1]


@pytest.mark.usefixtures("loopback_counts")
def test_every_sandbox_of_the_network_gets_out(store: str, server: Callable[[], int]) -> None:
    with (
        Engine.open(EngineSettings(store=store)) as engine,
        engine.network(Network(internet=True)) as network,
        engine.create(SandboxSpec(), [network]) as one,
        engine.create(SandboxSpec(), [network.join("other")]) as other,
    ):
        assert one.ip == "10.77.0.4"
        assert ask(one, server()) == "outside"
        assert ask(other, server()) == "outside"
        assert one.run("getent hosts other").returncode == 0


def test_the_host_itself_is_out_of_reach(engine: Engine, server: Callable[[], int]) -> None:
    with engine.create(SandboxSpec(network=Network(internet=True))) as sandbox:
        port = server()
        assert ask(sandbox, port) != "outside"
        with socket.create_connection(("127.0.0.1", port)):
            pass


def test_without_the_program_it_is_an_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        UnsupportedError, match="internet=True needs slirp4netns(.|\n)*hint: sudo apt install slirp4netns"
    ):
        engine.network(Network(internet=True))


def test_it_ends_with_the_network(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as sandbox, open(f"/proc/{sandbox.pid}/stat", encoding="ascii") as file:
        supervisor = int(file.read().split()[3])

    def running() -> list[int]:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in pids if _is_slirp_of(pid, supervisor)]

    # Of the test before, one may be about to end.
    before = set(running())
    with engine.network(Network(internet=True)):
        (pid,) = set(running()) - before
        ended = os.pidfd_open(pid)
    assert select.select([ended], [], [], 5)[0]
    os.close(ended)


def _is_slirp_of(pid: int, supervisor: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            _, name, _, parent, *_ = file.read().split()
    except OSError:
        return False
    return name.startswith("(slirp4netns") and int(parent) == supervisor
