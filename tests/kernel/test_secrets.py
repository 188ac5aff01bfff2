"""What a copy of the machine must not hand out: tried on a home that is full of it, for root and for anybody else.

The home is the one of the passwd file, and that file is one of the test's own: mounted over the real one, in a mount
namespace that ends with the process that looks.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.rootfs.host import SECRETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Look = Callable[..., dict[str, list[str]]]

# Seen in copies of the host, as its /tmp is not.
SHOWN = "/var/tmp"
# Says what is there of two homes, and which sockets in them answer.
LOOK = """
import os, sys
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.supervisor.identities import map_identities

store, passwd, mode, homes, show = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(":"), sys.argv[5:]
if mode == "user":
    map_identities("")
unshare(CloneFlag.NEWNS)
mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)
mount(passwd, "/etc/passwd", "", MountFlag.BIND)

import json
from pytest_sandbox_runtime import Engine, EngineSettings, SandboxSpec
from pytest_sandbox_runtime.capabilities import is_privileged

assert is_privileged() == (mode == "root")
with Engine.open(EngineSettings(store=store, show=tuple(show))) as engine, engine.create(SandboxSpec()) as sandbox:
    seen = sandbox.run(["find", *homes, "-not", "-type", "d"]).stdout.splitlines()
    told = sandbox.run(["cat", *(path for path in seen if not path.endswith("door"))], check=True).stdout.split()
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    doors = [f"{home}/door" for home in homes]
    answering = [door for door in doors if sandbox.run(["/usr/bin/python3", "-c", code, door]).returncode == 0]
json.dump({"seen": seen, "told": told, "answering": answering}, sys.stdout)
"""


@pytest.fixture
def homes() -> Iterator[tuple[Path, Path]]:
    """A home with one of each secret, every other one a directory, and a neighbour's; both with a socket that answers."""
    with tempfile.TemporaryDirectory(prefix="pytest-sandbox-", dir=SHOWN) as above, ExitStack() as doors:
        Path(above).chmod(0o755)
        own, other = Path(above, "own"), Path(above, "other")
        for number, name in enumerate(SECRETS):
            secret = own / name / "token" if number % 2 else own / name
            secret.parent.mkdir(parents=True, exist_ok=True)
            secret.write_text(f"secret {name}\n")
        (own / ".config/editor").write_text("harmless\n")
        other.mkdir(mode=0o755)
        (other / "diary").write_text("secret diary\n")
        for home in (own, other):
            door = doors.enter_context(socket.socket(socket.AF_UNIX))
            door.bind(str(home / "door"))
            door.listen()
        yield own, other


@pytest.fixture(params=[pytest.param("root", marks=pytest.mark.needs("root")), "user"])
def look(request: pytest.FixtureRequest, homes: tuple[Path, Path], tmp_path: Path) -> Look:
    """Look into a sandbox, as root and without."""
    own, other = homes
    passwd = tmp_path / "passwd"
    passwd.write_text(f"me:x:0:0:me:{own}:/bin/sh\nneighbour:x:1234:1234:neighbour:{other}:/bin/sh\n")

    def look(*show: str) -> dict[str, list[str]]:
        words = [str(tmp_path / "store"), str(passwd), request.param, f"{own}:{other}", *show]
        said = subprocess.run(
            [sys.executable, "-c", LOOK, *words], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        found: dict[str, list[str]] = json.loads(said)
        return found

    return look


def test_none_of_the_secrets_at_home_are_seen(look: Look, homes: tuple[Path, Path]) -> None:
    own, _ = homes
    found = look()
    assert found["seen"] == [str(own / ".config/editor")]
    assert found["told"] == ["harmless"]


def test_no_home_is_seen_but_ones_own_and_no_socket_answers(look: Look, homes: tuple[Path, Path]) -> None:
    _, other = homes
    found = look()
    assert [path for path in found["seen"] if path.startswith(str(other))] == []
    assert found["answering"] == []


def test_what_the_user_names_is_seen_and_nothing_beside_it(look: Look, homes: tuple[Path, Path]) -> None:
    own, other = homes
    found = look(str(own / ".ssh"), str(own / ".config/gh"), str(other / "diary"), str(own / "door"))
    files = [own / ".config/editor", own / ".config/gh/token", own / ".ssh", own / "door", other / "diary"]
    assert sorted(found["seen"]) == sorted(map(str, files))
    assert sorted(set(found["told"])) == sorted(["harmless", "secret", ".config/gh", ".ssh", "diary"])
    assert found["answering"] == [str(own / "door")]
