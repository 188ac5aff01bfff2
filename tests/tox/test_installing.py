"""Installation has the network and this machine; commands have neither."""

from __future__ import annotations

import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tox

import pytest_sandbox
import pytest_sandbox_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.tox.conftest import Project

pytestmark = pytest.mark.needs("overlay-on-host", "networks")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_said: object) -> None:
        pass


def write_wheel(directory: Path, name: str, release: str, files: dict[str, str]) -> str:
    info = f"{name}-{release}.dist-info"
    wheel = f"{name}-{release}-py3-none-any.whl"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(directory / wheel, "w") as archive:
        for path, text in {**files, **meta}.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in (*files, *meta, f"{info}/RECORD")))
    return wheel


@pytest.fixture
def index(project: Project, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """An index of packages on this machine's loopback device, and what adds to it."""
    root = tmp_path / "index"
    root.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        project.env["PIP_INDEX_URL"] = url

        def publish(name: str, release: str, files: dict[str, str]) -> str:
            write_wheel(root / name, name, release, files)
            return url

        yield publish
        server.shutdown()


def test_what_an_install_command_may_reach_a_test_command_may_not(project: Project, index: Callable[..., str]) -> None:
    url = index("thing", "1", {"thing.py": "print('thing is there')"})
    project.write(
        "ask.py",
        f"""
        import thing, urllib.request
        print(urllib.request.urlopen("{url}", timeout=10).status)
        """,
    )
    project.write(
        "tox.ini",
        """
        [tox]
        no_package = true
        [testenv]
        runner = sandbox
        pass_env = PIP_*
        deps = thing
        commands = python ask.py
        """,
    )
    out = project.tox("-q", status=1)
    assert "thing is there\n" in out
    assert "Connection refused" in out
    assert "thing is there\n200\n" in project.tox("-q", "-x", "testenv.sandbox_network=host")


BACKEND = """
    import os, shutil

    def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
        name, = os.listdir("built")
        shutil.copy(f"built/{name}", wheel_directory)
        return name
"""


def test_the_project_is_packaged_and_installed_as_by_toxs_own_runner(project: Project) -> None:
    write_wheel(project.root / "built", "mine", "3", {"mine.py": "print('it is installed')"})
    project.write("backend.py", BACKEND)
    project.write(
        "pyproject.toml",
        """
        [build-system]
        requires = []
        build-backend = "backend"
        backend-path = ["."]
        [project]
        name = "mine"
        version = "3"
        [tool.tox.env_run_base]
        package = "wheel"
        runner = "sandbox"
        commands = [["python", "-c", "import mine, os; print(os.path.basename(os.environ['TOX_PACKAGE']))"]]
        """,
    )
    out = project.tox("-e", "py")
    assert "it is installed\nmine-3-py3-none-any.whl\n" in out
    assert "install_package>" in out


def test_a_provisioned_tox_has_the_runner_too(project: Project, index: Callable[..., str]) -> None:
    # In place of tox and of this plugin, what leads to those that are here.
    paths = {str(Path(module.__file__ or "").parents[1]) for module in (tox, pytest_sandbox, pytest_sandbox_runtime)}
    index("tox", version("tox"), {"here.pth": "".join(f"{path}\n" for path in sorted(paths))})
    index("thing", "1", {"thing.py": ""})
    project.write(
        "tox.ini",
        """
        [tox]
        requires = thing
        no_package = true
        [testenv]
        skip_install = true
        runner = sandbox
        commands = python -c "import os; print('on', os.uname().nodename)"
        """,
    )
    out = project.tox("run", "--runner", "sandbox")
    assert "will run in automatically provisioned tox" in out
    assert "on sandbox\n" in out
