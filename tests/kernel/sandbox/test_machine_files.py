"""The files of a sandbox, and what of the host's it has."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.engine import Engine
from pytest_sandbox_runtime.errors import (
    FileAccessError,
)
from pytest_sandbox_runtime.sandbox import Sandbox
from pytest_sandbox_runtime.specs import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("overlay-on-host")
# A copy of the host shows neither its /tmp nor its homes; this, it shows.
SHOWN = "/var/tmp"
needs_python = pytest.mark.needs("python3")


@pytest.fixture
def shown() -> Iterator[Path]:
    """A directory of the host that is seen in copies of it."""
    with tempfile.TemporaryDirectory(prefix="pytest-sandbox-", dir=SHOWN) as path:
        yield Path(path)


def printed(box: Sandbox, command: str | list[str]) -> str:
    return str(box.run(command, check=True).stdout)


# Files


@pytest.mark.needs("root")
def test_two_sandboxes_do_not_see_each_others_files(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as one, engine.create(SandboxSpec()) as two:
        for path in ("/tmp/mine", f"{SHOWN}/mine", "/dev/shm/mine"):
            one.run(f"echo mine > {path}", check=True)
            assert two.run(["test", "-e", path]).returncode == 1


@pytest.mark.needs("root")
def test_the_next_sandbox_is_as_fresh_as_the_first(engine: Engine) -> None:
    for _ in range(5):
        with engine.create(SandboxSpec()) as sandbox:
            sandbox.run(f"test ! -e {SHOWN}/mine && echo mine > {SHOWN}/mine", check=True)


@pytest.mark.needs("root")
def test_what_is_removed_inside_stays_on_the_host(box: Sandbox, shown: Path, engine: Engine) -> None:
    (shown / "canary").write_text("alive")
    with engine.create(SandboxSpec()) as sandbox:
        assert printed(sandbox, ["cat", str(shown / "canary")]) == "alive"
        sandbox.run(["rm", "-rf", str(shown)], check=True)
        assert sandbox.run(["test", "-e", str(shown)]).returncode == 1
    assert (shown / "canary").read_text() == "alive"


@pytest.mark.needs("root")
def test_what_is_written_inside_stays_inside(shown: Path, engine: Engine) -> None:
    (shown / "canary").write_text("alive")
    with engine.create(SandboxSpec()) as sandbox:
        sandbox.run(f"echo dead > {shown}/canary; echo new > {shown}/new", check=True)
    assert [(path.name, path.read_text()) for path in shown.iterdir()] == [("canary", "alive")]


@pytest.mark.needs("root")
def test_changes_are_told(shown: Path, engine: Engine) -> None:
    (shown / "modified").write_text("before")
    (shown / "deleted").write_text("before")
    with engine.create(SandboxSpec()) as sandbox:
        assert not sandbox.changes()
        sandbox.run(f"cd {shown} && echo > added && echo > modified && rm deleted && echo > /dev/shm/x", check=True)
        changes = sandbox.changes().below(str(shown))
    assert changes.added == (f"{shown}/added",)
    assert changes.modified == (f"{shown}/modified",)
    assert changes.deleted == (f"{shown}/deleted",)


def test_files_are_read_and_written(box: Sandbox) -> None:
    box.write_text("/tmp/text", "grüß\n")
    assert printed(box, ["cat", "/tmp/text"]) == "grüß\n"
    assert box.read_text("/tmp/text") == "grüß\n"
    box.write_bytes("/tmp/bytes", bytes(range(256)))
    assert box.read_bytes("/tmp/bytes") == bytes(range(256))
    assert box.files.exists("/tmp/bytes")


def test_a_missing_file_is_an_error_with_its_errno(box: Sandbox) -> None:
    with pytest.raises(FileAccessError, match="/no/such/file") as caught:
        box.read_text("/no/such/file")
    assert isinstance(caught.value, OSError)


def test_trees_go_in_and_come_out(box: Sandbox, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/script").write_text("#!/bin/sh\necho ran\n")
    (tree / "deep/script").chmod(0o755)
    (tree / "link").symlink_to("deep/script")
    box.put(tree, "/tmp/tree")
    assert printed(box, ["/tmp/tree/link"]) == "ran\n"
    box.run("echo more > /tmp/tree/more", check=True)
    box.get("/tmp/tree", tmp_path / "back")
    assert (tmp_path / "back/more").read_text() == "more\n"
    assert os.readlink(tmp_path / "back/link") == "deep/script"
    assert os.access(tmp_path / "back/deep/script", os.X_OK)


def test_no_link_leads_out_of_the_sandbox(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    box.run(["ln", "-s", str(tmp_path / "secret"), "/tmp/link"], check=True)
    with pytest.raises(FileAccessError):
        box.read_text("/tmp/link")


def test_a_read_only_sandbox_cannot_be_written_to(engine: Engine) -> None:
    with engine.create(SandboxSpec(read_only=True)) as sandbox:
        assert "Read-only file system" in str(sandbox.run(f"echo x > {SHOWN}/x").stderr)
        sandbox.run("echo x > /tmp/x", check=True)
        assert not sandbox.changes().below(SHOWN)


def test_the_hosts_temporary_files_are_hidden(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with engine.create(SandboxSpec()) as sandbox:
        assert sandbox.run(["test", "-e", str(tmp_path / "secret")]).returncode == 1


CONNECT = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(sys.argv[1])
except OSError:
    print("refused")
else:
    print("connected")
"""


@needs_python
def test_no_unix_socket_of_the_host_can_be_connected_to(engine: Engine, shown: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(shown / "door"))
        server.listen()
        (shown / "door").chmod(0o777)
        with engine.create(SandboxSpec()) as sandbox:
            assert sandbox.run(["test", "-d", str(shown)]).returncode == 0
            assert printed(sandbox, ["python3", "-c", CONNECT, str(shown / "door")]) == "refused\n"


def test_other_homes_are_hidden(box: Sandbox) -> None:
    own = os.path.basename(os.path.expanduser("~"))
    assert set(str(box.run("ls -A /home").stdout).split()) <= {own}
