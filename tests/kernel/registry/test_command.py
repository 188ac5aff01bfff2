"""The commands that deal with registries."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox.cli import main
from pytest_sandbox_runtime import Image, SandboxSpec
from pytest_sandbox_runtime.command import PATH

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.images.store import Store
    from tests.kernel.conftest import Bench
    from tests.kernel.registry.images import Pushed
    from tests.kernel.registry.registries import Registry

    Push = Callable[..., Pushed]

pytestmark = pytest.mark.needs("docker-registry", "skopeo")


@pytest.fixture(autouse=True)
def at_home(home: dict[str, str], store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**home, "PYTEST_SANDBOX_HOME": store.path}.items():
        monkeypatch.setenv(name, value)
    for name in ("DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_an_image_is_pulled_and_pushed(registry: Registry, push: Push, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{registry.host}/command/a:1"
    pushed = push(name)
    assert main(["pull", name]) == 0
    assert capsys.readouterr().out == f"{pushed.digest}\n"
    assert main(["push", name, f"{registry.host}/command/b:2"]) == 0
    assert capsys.readouterr().out == f"{pushed.digest}\n"
    assert main(["tag", name, f"{registry.host}/command/b:12"]) == 0
    assert main(["push", f"{registry.host}/command/b:12"]) == 0
    assert main(["search-tags", f"{registry.host}/command/b"]) == 0
    assert capsys.readouterr().out == f"{pushed.digest}\n2\n12\n"
    assert main(["search-tags", f"{registry.host}/command/b", "1"]) == 0
    assert capsys.readouterr().out == "12\n"


def test_a_terminal_shows_how_much_is_there(registry: Registry, push: Push) -> None:
    name = f"{registry.host}/command/bar:1"
    push(name)
    code = "import sys; from pytest_sandbox.cli import main; sys.exit(main())"
    for word in ("pull", "push"):
        ours, theirs = pty.openpty()
        with open(ours, "rb", buffering=0) as terminal:
            argv = [sys.executable, "-c", code, word, name]
            child = subprocess.Popen(
                argv, stderr=theirs, stdout=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "120"}
            )
            os.close(theirs)
            # Linux says EIO where the other side of a terminal is gone.
            said = b""
            with contextlib.suppress(OSError):
                while data := terminal.read(4096):
                    said += data
        assert child.wait() == 0
        shown = said.decode().replace("\033[K", "").split("\r")
        assert shown[0] == f"{word} {name}"
        assert re.fullmatch(rf"{word} {name} \[#* *\] [\d.]+ MB of [\d.]+ MB, [\d.]+ MB/s", shown[1])
        assert re.fullmatch(rf"{word} {name} [\d.]+ MB, [\d.]+ s", shown[-2])
        assert shown[-1] == "\n"


def test_what_goes_wrong_is_said_with_a_hint(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", f"{registry.host}/command/none:1"]) == 1
    said = f"pull {registry.host}/command/none:1\npytest-sandbox: there is no repository {registry.host}/command/none\n  hint: is the name right?\n"
    assert capsys.readouterr().err == said
    assert main(["push", "nothing"]) == 1
    assert "the store has no image nothing" in capsys.readouterr().err
    assert main(["pull", registry.host + "/a:1", "--platform", "what/is/this/now"]) == 1
    assert "is no platform" in capsys.readouterr().err


@pytest.mark.needs("htpasswd")
def test_a_login_is_tried_before_it_is_written(
    guarded: Registry,
    push: Push,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    home: dict[str, str],
) -> None:
    path = Path(home["HOME"], ".docker/config.json")
    monkeypatch.setattr("sys.stdin", io.StringIO("wrong\n"))
    assert main(["login", guarded.host, "-u", "me", "--password-stdin"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(
        f"pytest-sandbox: {guarded.host} refuses: 401 authentication required (tried were me of this login)"
    )
    assert "wrong" not in said.err + said.out
    assert not path.exists()

    monkeypatch.setattr("sys.stdin", io.StringIO("pass:word\n"))
    assert main(["login", f"http://{guarded.host}/v2/", "-u", "me", "--password-stdin"]) == 0
    assert capsys.readouterr().out == f"Logged in to {guarded.host}; written to {path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    push(f"{guarded.host}/command/a:1", "--dest-creds=me:pass:word")
    assert main(["pull", f"{guarded.host}/command/a:1"]) == 0
    capsys.readouterr()

    assert main(["logout", guarded.host]) == 0
    assert main(["logout", guarded.host]) == 0
    assert (
        capsys.readouterr().out
        == f"Logged out of {guarded.host}; removed from {path}\nThere was no login to {guarded.host}\n"
    )
    assert json.loads(path.read_text()) == {"auths": {}}


@pytest.mark.needs("openssl")
def test_a_login_to_a_registry_of_tokens(
    tokened: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("wrong"))
    assert main(["login", tokened.host, "-u", "me", "--password-stdin"]) == 1
    assert (
        f"gives no token for {tokened.host}: 401 Unauthorized (tried were me of this login)" in capsys.readouterr().err
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("pass:word"))
    assert main(["login", tokened.host, "-u", "me", "--password-stdin"]) == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["login", "ghcr", "-u", "a", "--password-stdin"], "'ghcr' is no registry\n  hint: for example ghcr.io"),
        (["login", "localhost:1", "--password-stdin"], "--password-stdin needs a --username"),
        (
            ["login", "localhost:1", "-u", "a"],
            "there is no terminal to ask for a password\n  hint: pipe the password in",
        ),
        (["login", "127.0.0.1:1", "-u", "a", "--password-stdin"], "127.0.0.1:1 refuses connections"),
        (["logout", "A B"], "'A B' is no registry"),
    ],
)
def test_a_login_that_cannot_be_is_told(
    argv: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("secret"))
    assert main(argv) == 1
    assert said in capsys.readouterr().err


@pytest.mark.needs("htpasswd")
def test_on_a_terminal_a_password_is_asked_for_and_not_shown(guarded: Registry) -> None:
    program = "import sys; from pytest_sandbox.cli import main; sys.exit(main())"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", program, "login", guarded.host])
    shown = ""

    def read_until(text: str) -> None:
        nonlocal shown
        while text not in shown:
            shown += os.read(terminal, 4096).decode()

    read_until("Username for")
    os.write(terminal, b"me\n")
    read_until("Password of me for")
    os.write(terminal, b"pass:word\n")
    read_until("Logged in to")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert "pass:word" not in shown


@pytest.mark.needs("overlayfs", "static-busybox")
def test_an_image_that_is_declared_is_pulled_when_it_is_needed(
    registry: Registry, base: Image, bench: Bench, open_bench: Callable[..., Bench]
) -> None:
    name = f"{registry.host}/command/base:1"
    made = bench.engine.images.build(base.file("/said", "hello\n"))
    bench.engine.images.push(made, name)
    other = open_bench("other")
    assert other.printed(Image.pull(name), "cat /said") == "hello\n"
    assert other.said == [f"pull {name}"]
    image = Image.pull(f"{name}@{made.digest}").run("echo more >> /said")
    assert other.printed(image, "cat /said") == "hello\nmore\n"
    with other.engine.create(SandboxSpec(image=Image.pull(name))) as sandbox:
        assert sandbox.read_text("/said") == "hello\n"
    assert re.fullmatch("sha256:[a-f0-9]{64}", other.digest(Image.pull(name)))


@pytest.mark.needs("overlayfs", "static-busybox", "docker", "root")
def test_what_is_built_and_pushed_docker_runs(registry: Registry, base: Image, bench: Bench, dockerd: Path) -> None:
    name = f"{registry.host}/command/run:1"
    made = bench.engine.images.build(base.run("echo hello > /said").env(A="b").cmd("cat /said; echo $A"))
    bench.engine.images.push(made, name)
    docker = (str(shutil.which("docker", path=f"/usr/bin:{PATH}")), "--host", f"unix://{dockerd}")
    said = subprocess.run(
        (*docker, "run", "--rm", "--network=none", name), check=True, stdout=subprocess.PIPE, text=True
    )
    assert said.stdout == "hello\nb\n"
