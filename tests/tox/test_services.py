"""Services beside an environment: declared in ini and TOML, told by tox-docker's names."""

from __future__ import annotations

import os
import signal
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.tox.conftest import Project

pytestmark = pytest.mark.needs("overlay-on-host", "networks")

# A server that says how it is called, and a client that asks it.
SERVER = """
    import os, socketserver, sys

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(os.environ["CALLED"].encode())

    server = socketserver.TCPServer(("", int(sys.argv[1])), Handler)
    print("up", flush=True)
    server.serve_forever()
"""
CLIENT = """
    import os, socket, sys

    for name, port in zip(sys.argv[1::2], sys.argv[2::2]):
        address = os.environ[f"{name}_HOST"], int(os.environ[f"{name}_{port}_TCP_PORT"])
        with socket.create_connection(address) as stream:
            print(name, *address, stream.makefile().read(), flush=True)
"""
TOML = """
    no_package = true
    env_list = ["inside", "outside", "beside"]

    [env_run_base]
    skip_install = true
    sandbox_services = ["db", "my-cache"]
    commands = [["python", "client.py", "DB", "5432", "MY_CACHE", "7000"]]

    [env.inside]
    runner = "sandbox"

    [env.outside]
    runner = "sandbox"
    sandbox_network = "host"

    [sandbox.db]
    image = "host"
    command = ["python3", "-c", "@SERVER@", "5432"]
    environment = { CALLED = "the database" }
    ports = [5432]

    [sandbox.my-cache]
    image = "host"
    command = ["python3", "-c", "@SERVER@", "7000"]
    environment = { CALLED = "the cache" }
    ports = [7000]
    ready = "log:up"
    timeout = 60
"""
PYTHON = """
    import sys

    from pytest_sandbox import Service

    SERVER = '''@SERVER@'''

    db = Service(command=["python3", "-c", SERVER, "5432"], ports=[5432], env={"CALLED": "declared in Python"})

    def cache(**words):
        return Service(command=["python3", "-c", SERVER, "7000"], **{"ports": [7000], **words})
"""
INI = """
    [tox]
    no_package = true
    [testenv]
    skip_install = true
    sandbox_services = db cache
    commands = python client.py DB 5432 CACHE 7000
        python -c "print('port', {env:DB_5432_TCP_PORT})"
    [testenv:inside]
    runner = sandbox
    [sandbox:db]
    service = declared.services:db
    [sandbox:cache]
    service = declared.services:cache
    environment =
        CALLED = {[words]called}
    ready = port:7000
    [words]
    called = made by a function
"""


def with_server(text: str) -> str:
    """Return ``text`` with the server's code, as a string of TOML or of Python has it."""
    code = dedent(SERVER).strip().replace('"', '\\"').replace("\n", "\\n")
    return dedent(text).replace("@SERVER@", code)


@pytest.mark.parametrize("command", ["run", "run-parallel"])
def test_services_are_found_from_inside_and_from_this_machine(project: Project, command: str) -> None:
    project.write("client.py", CLIENT)
    project.write("tox.toml", with_server(TOML))
    out = project.tox(command, *(["--parallel-live"] if command == "run-parallel" else []))
    assert "DB db 5432 the database\nMY_CACHE my-cache 7000 the cache\n" in out
    assert out.count("\nDB 127.0.0.1 ") == 2
    assert out.count("\nMY_CACHE 127.0.0.1 ") == 2


def test_a_configuration_in_pyproject_is_read_too(project: Project) -> None:
    project.write("client.py", CLIENT)
    tables = with_server(TOML).replace("\n[", "\n[tool.tox.")
    project.write("pyproject.toml", f"[tool.tox]\n{tables}")
    assert "DB db 5432 the database\n" in project.tox("-e", "inside")
    said = project.tox("-v", "-e", "inside")
    assert "unused config key" not in said


@pytest.mark.parametrize("name", ["tox.ini", "setup.cfg"])
def test_services_may_be_declared_in_python(project: Project, name: str) -> None:
    project.write("client.py", CLIENT)
    project.write("declared/services.py", with_server(PYTHON))
    project.write(name, INI.replace("[tox]", "[tox:tox]") if name == "setup.cfg" else INI)
    assert "CACHE cache 7000 made by a function\nport 5432\n" in project.tox("-q", "-e", "inside").replace(
        "DB db 5432 declared in Python\n", ""
    )
    assert "port 5432\n" not in project.tox("-q", "-e", "py")
    assert os.listdir(project.root / "declared") in (
        ["services.py"],
        ["services.py", "__pycache__"],
        ["__pycache__", "services.py"],
    )


@pytest.mark.needs("redis-server")
def test_redis_with_the_hosts_own_server(project: Project) -> None:
    project.write(
        "tox.ini",
        """
        [tox]
        no_package = true
        [testenv]
        skip_install = true
        runner = sandbox
        sandbox_services = redis
        allowlist_externals = redis-cli
        commands = redis-cli -h redis -p {env:REDIS_6379_TCP_PORT} set a 1
        [sandbox:redis]
        service = redis
        image = host
        command = redis-server --protected-mode no --bind * --save ""
        """,
    )
    assert "OK\n" in project.tox("-q")


def test_one_supervisor_is_for_all_environments(project: Project) -> None:
    project.write(
        "tox.toml",
        f"""
        no_package = true
        env_list = ["a", "b"]
        [env_run_base]
        skip_install = true
        sandbox_services = ["empty"]
        commands = [["python", "-c", "import os; print(len(os.listdir({str(project.runs)!r})), 'run')"]]
        [sandbox.empty]
        image = "host"
        command = ["sleep", "1000"]
        """,
    )
    assert project.tox("-q").count("1 run\n") == 2
    assert project.tox("run-parallel", "-o", "-q").count("1 run\n") == 2


def test_a_service_that_ends_fails_the_environment_with_what_it_said(project: Project) -> None:
    project.write(
        "tox.toml",
        """
        no_package = true
        [env_run_base]
        skip_install = true
        sandbox_services = ["good", "bad"]
        commands = [["python", "-c", ""]]
        [sandbox.good]
        image = "host"
        command = ["sleep", "1000"]
        [sandbox.bad]
        image = "host"
        command = ["sh", "-c", "echo no such table; exit 3"]
        ports = [5432]
        """,
    )
    said = project.fails()
    assert "failed with environment py: service bad was not ready" in said
    assert "no such table" in said


@pytest.mark.parametrize(
    ("ready", "what"),
    [
        ("port:99", "port 99/tcp"),
        ("log:open for (all|some)", "'open for (all|some)' in its log"),
        ("http:/nothing", "status 200 of /nothing"),
    ],
)
def test_a_service_that_does_not_get_ready_fails_the_environment(project: Project, ready: str, what: str) -> None:
    project.write(
        "tox.ini",
        f"""
        [tox]
        no_package = true
        [testenv]
        skip_install = true
        sandbox_services = slow
        commands = python -c ""
        [sandbox:slow]
        image = host
        command = sleep 1000
        ports = 80
        ready = {ready}
        timeout = 0.1
        """,
    )
    assert f"service slow was not ready after 0.1 s: waited for {what}" in project.fails()


def test_an_interrupt_ends_the_wait_for_a_service(project: Project) -> None:
    os.mkfifo(project.root / "pipe")
    project.write(
        "never.py",
        f"""
        from pytest_sandbox import Mount, Service

        pipe = Mount(source={str(project.root / "pipe")!r}, target="/pipe", read_only=False)
        ready = Service(command="echo up > /pipe; sleep 1000", ports=[1], timeout=600, sandbox={{"mounts": (pipe,)}})
        """,
    )
    project.write(
        "tox.ini",
        """
        [tox]
        no_package = true
        [testenv]
        skip_install = true
        sandbox_services = never
        commands = python -c ""
        [sandbox:never]
        service = never:ready
        """,
    )
    with project.start() as process:
        assert (project.root / "pipe").read_text() == "up\n"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate()
    assert process.returncode != 0
    assert "py: failed with an interrupt" in said
    assert "commands[0]>" not in said
