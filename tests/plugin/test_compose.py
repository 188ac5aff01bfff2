"""Compose files, as a fixture and by the command."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("overlayfs", "networks", "static-busybox")

SERVE = "mkdir -p /tmp/www; echo page > /tmp/www/index.html; echo serving; exec busybox httpd -f -p 80 -h /tmp/www"
CALL = """
services:
  caller:
    image: base
    command: [busybox, wget, -qO-, "http://machine:{port}/hook"]
    extra_hosts: ["machine:host-gateway"]
  after: {{image: base, command: busybox sleep 1000, depends_on: {{caller: {{condition: service_completed_successfully}}}}}}
"""
FILE = f"""
services:
  web:
    image: base
    command: ["sh", "-c", "{SERVE}"]
    ports: ["80"]
  once: {{image: base, command: echo hello}}
"""


@pytest.fixture
def project(tmp_path: Path, busybox_tar: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/compose.yaml").write_text(FILE)
    (tmp_path / "shop/base.tar").symlink_to(busybox_tar)
    return tmp_path / "shop"


@pytest.fixture
def compose(project: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    environment = {**os.environ, "PYTEST_SANDBOX_HOME": str(project.parent / "store")}
    command = [sys.executable, "-c", "from pytest_sandbox.cli import main; raise SystemExit(main())", "compose"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [*command, "--image", "base=base.tar", *words]
        return subprocess.run(argv, cwd=project, env=environment, capture_output=True, text=True, check=False)

    yield run
    run("down")


@pytest.fixture
def hook() -> Iterator[int]:
    """Where somebody listens in this process."""

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"called\n")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_project_is_a_fixture(pytester: pytest.Pytester, busybox_tar: Path) -> None:
    (pytester.path / "compose.yaml").write_text(FILE)
    pytester.makepyfile(
        f"""
        import urllib.request
        import pytest
        from pytest_sandbox import Image, sandbox_compose

        shop = sandbox_compose("compose.yaml", images={{"base": Image.archive({str(busybox_tar)!r})}})

        def test_page(shop):
            assert urllib.request.urlopen(shop["web"].url() + "index.html").read() == b"page\\n"

        def test_names(shop):
            assert sorted(shop.services) == ["once", "web"]

        def test_log(shop):
            assert False
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    outcome.assert_outcomes(passed=2, failed=1)
    # It drives sandboxes, and so from outside.
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--sandbox").assert_outcomes(passed=2, failed=1)


def test_a_mistake_in_the_file_fails_the_test_with_its_line(pytester: pytest.Pytester) -> None:
    (pytester.path / "compose.yaml").write_text("services:\n  web:\n    imagee: base\n")
    pytester.makepyfile(
        """
        from pytest_sandbox import sandbox_compose

        shop = sandbox_compose("compose.yaml")

        def test_page(shop):
            pass
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    outcome.stdout.fnmatch_lines(
        ["*compose.yaml:3:5: services.web.imagee: there is no such key*", "*did you mean image?*"]
    )


def test_a_project_goes_up_is_listed_prints_and_goes_down(
    compose: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    up = compose("up", "--detach")
    assert up.returncode == 0, up.stderr
    listed = compose("ps").stdout.splitlines()
    assert listed[0].split() == ["SERVICE", "PROCESS", "PORTS"]
    rows = {line.split()[0]: line for line in listed[1:]}
    assert " runs " in rows["web"]
    address = rows["web"].rsplit(" at ", 1)[1]
    page = subprocess.run(
        [sys.executable, "-c", f"import urllib.request as r; print(r.urlopen('http://{address}/index.html').read())"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert page.stdout == "b'page\\n'\n", page.stderr
    assert sorted(compose("logs").stdout.splitlines()) == ["once | hello", "web  | serving"]
    assert compose("logs", "web").stdout == "web | serving\n"
    again = compose("up", "--detach")
    assert (again.returncode, again.stderr.splitlines()[0]) == (1, "pytest-sandbox: shop is up")
    assert compose("down").returncode == 0
    gone = compose("ps")
    assert gone.stderr == "pytest-sandbox: shop is not up\n  hint: start it: pytest-sandbox compose up --detach\n"


def test_ports_of_the_machine_are_exposed_before_anything_starts(
    compose: Callable[..., subprocess.CompletedProcess[str]], project: Path, hook: int
) -> None:
    (project / "compose.yaml").write_text(CALL.format(port=hook))
    up = compose("up", "--detach", "--expose", str(hook))
    assert up.returncode == 0, up.stdout
    assert compose("logs", "caller").stdout == "caller | called\n"


def test_a_fixture_exposes_ports_of_the_machine(pytester: pytest.Pytester, busybox_tar: Path, hook: int) -> None:
    (pytester.path / "compose.yaml").write_text(CALL.format(port=hook))
    pytester.makepyfile(
        f"""
        from pytest_sandbox import Image, sandbox_compose

        base = Image.archive({str(busybox_tar)!r})
        project = sandbox_compose("compose.yaml", images={{"base": base}}, expose=[{hook}])

        def test_call(project):
            assert project["caller"].logs() == "called\\n"
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_what_could_not_start_says_why(compose: Callable[..., subprocess.CompletedProcess[str]], project: Path) -> None:
    (project / "compose.yaml").write_text(
        "services: {web: {image: base, command: nothing, healthcheck: {test: 'true'}}}"
    )
    up = compose("up", "--detach")
    assert up.returncode == 1
    assert "there is no program 'nothing'" in up.stdout
    assert "is not up" in compose("ps").stderr


def test_ctrl_c_ends_what_is_up_in_the_foreground(project: Path) -> None:
    environment = {**os.environ, "PYTEST_SANDBOX_HOME": str(project.parent / "store")}
    argv = [sys.executable, "-c", "from pytest_sandbox.cli import main; raise SystemExit(main())", "compose"]
    argv += ["--image", "base=base.tar", "up"]
    with subprocess.Popen(argv, cwd=project, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "web  | serving\n":
                process.send_signal(signal.SIGINT)
                break
        assert process.wait(30) == 130
