"""The recipes of docs/ci.md that can be tried on any host: containers of Docker and podman, in which tests have sandboxes."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pytest_sandbox
import pytest_sandbox_runtime
from pytest_sandbox_runtime.command import PATH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.needs("root")

RECIPES = Path(__file__).parents[2] / "docs/ci.md"
SUITE = """
import os, socket, subprocess

NEW = "/etc/new" if os.geteuid() == 0 else "/tmp/new"

def test_inside():
    subprocess.run(["touch", NEW], check=True)
    assert os.path.exists(NEW)
    socket.create_server(("127.0.0.1", 80)).close()

def test_nothing_is_left():
    assert not os.path.exists(NEW)

def test_driven(sandbox):
    # There is a volume below: it is a file beside that.
    assert sandbox.read_text(__file__) == open(__file__).read()
    assert sandbox.run("cat /suite/volume/file; hostname", check=True).stdout == "in a volume\\nsandbox\\n"
"""
SANDBOXED = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:asyncio", "--sandbox")
DOCTOR = ("-m", "pytest", "--sandbox-doctor")
PACKAGES = [module.__path__[0] for module in (pytest_sandbox, pytest_sandbox_runtime)]


def mounts() -> list[str]:
    """Return what makes an empty container one that has what this process runs on."""
    shown = {"/usr", sys.prefix, sys.base_prefix, *PACKAGES}
    return [f"--volume={path}:{path}:ro" for path in sorted(shown)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a container, in which there is the suite, and the programs of this host are seen."""
    root = tmp_path / "root"
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("etc", "usr", "tmp", "suite"):
        (root / name).mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "suite/test_it.py").write_text(SUITE)
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/file").write_text("in a volume\n")
    return root


def recipe(program: str) -> list[str]:
    """Return the words of the command that starts a container, up to its image, as they stand there."""
    (line,) = (line for line in RECIPES.read_text().splitlines() if line.startswith(f"$ {program} run"))
    return shlex.split(line.removeprefix("$ ").partition(" IMAGE")[0])[2:]


class Container:
    """Starts the suite in containers of ``image``, an empty one but for it."""

    def __init__(self, command: list[str], image: list[str], recipe: list[str], volume: Path) -> None:
        self.recipe = recipe
        self._volume = volume
        self._command = command
        self._image = image

    def run(self, *options: str, argv: Sequence[str] = SANDBOXED) -> subprocess.CompletedProcess[str]:
        volume = f"--volume={self._volume}:/suite/volume"
        words = [*self._command, *options, "--rm", "--network=none", volume, *mounts(), "-w", "/suite", *self._image]
        return subprocess.run([*words, sys.executable, *argv], capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def docker(dockerd: Path, root: Path) -> Container:
    client = [str(shutil.which("docker", path=f"/usr/bin:{PATH}")), "--host", f"unix://{dockerd}"]
    packed = subprocess.run(["tar", "-C", str(root), "-c", "."], check=True, capture_output=True).stdout
    image = subprocess.run([*client, "import", "-"], input=packed, check=True, capture_output=True).stdout
    return Container([*client, "run"], [image.decode().strip()], recipe("docker"), root.parent / "volume")


@pytest.fixture
def podman(root: Path) -> Iterator[Container]:
    # Its paths may have fifty characters.
    with tempfile.TemporaryDirectory() as place:
        storage = [f"--root={place}/storage", f"--runroot={place}/run", "--cgroup-manager=cgroupfs"]
        limits = ["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"]
        # Apart, as it leaves mounts behind.
        command = ["unshare", "--mount", "podman", *storage, "run", *limits]
        yield Container(command, ["--rootfs", str(root)], recipe("podman"), root.parent / "volume")


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.needs("docker")),
        pytest.param("podman", marks=pytest.mark.needs("podman")),
    ]
)
def container(request: pytest.FixtureRequest) -> Container:
    started: Container = request.getfixturevalue(request.param)
    return started


def test_in_a_container_as_it_is_the_error_and_doctor_have_the_words_of_the_recipe(container: Container) -> None:
    words = " ".join(container.recipe)
    done = container.run()
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert words in done.stdout, done.stdout
    assert "INTERNALERROR" not in done.stdout
    done = container.run(argv=DOCTOR)
    assert done.returncode == 1
    assert words in " ".join(done.stdout.split())
    assert "\nThe main job cannot run here: " in done.stdout


@pytest.mark.parametrize(
    "options",
    [("--user=1000:1000", "--env=HOME=/tmp"), ("--volume={}/store:/store", "--env=PYTEST_SANDBOX_HOME=/store")],
    ids=["user", "volume"],
)
def test_in_a_container_of_the_recipe_tests_have_sandboxes(
    container: Container, options: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    done = container.run(*container.recipe, *(option.format(tmp_path) for option in options))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_in_a_container_of_the_recipe_doctor_has_nothing_to_mend(container: Container) -> None:
    done = container.run(*container.recipe, argv=DOCTOR)
    assert done.returncode == 0, done.stdout
    assert "The main job can run here" in done.stdout
