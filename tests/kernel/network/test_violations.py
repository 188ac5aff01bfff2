"""What a sandbox is refused by its networks: at once inside, and said outside, with who wanted what."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import (
    PIPE,
    Engine,
    EngineError,
    EngineSettings,
    Network,
    SandboxSpec,
    StartError,
    Violation,
)
from pytest_sandbox_runtime.network.hearing import program_of
from pytest_sandbox_runtime.network.watch import LOG_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime import LiveNetwork, Sandbox

pytestmark = pytest.mark.needs("overlay-on-host", "networks", "python3")

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])))"
# By whose thread, and in which form, a program may name an address.
IN_A_THREAD = "import threading; one = threading.Thread(target=lambda: go()); one.start(); one.join()"
FORMS = {
    "ipv4": ("go()", "AF_INET", "('203.0.113.7', 443)", "203.0.113.7"),
    "ipv6": ("go()", "AF_INET6", "('2001:db8::7', 443)", "2001:db8::7"),
    "mapped": ("go()", "AF_INET6", "('::ffff:203.0.113.7', 443)", "203.0.113.7"),
    "thread": (IN_A_THREAD, "AF_INET", "('203.0.113.7', 443)", "203.0.113.7"),
}


@pytest.fixture
def engine(engine: Engine) -> Engine:
    """What others have left is not this test's."""
    engine.violations()
    return engine


def python(sandbox: Sandbox, program: str, *words: object) -> str:
    """Run ``program``, and return the last line that it has printed."""
    outcome = sandbox.run(["python3", "-c", program, *map(str, words)])
    return "".join((str(outcome.stdout) + str(outcome.stderr)).strip().splitlines()[-1:])


def wanted(engine: Engine) -> list[tuple[str, int]]:
    return [(violation.name, violation.port) for violation in engine.violations()]


@pytest.mark.parametrize("form", FORMS)
def test_a_connection_is_said_with_its_program(engine: Engine, create: Callable[..., Sandbox], form: str) -> None:
    how, family, place, said = FORMS[form]
    program = f"import socket; go = lambda: socket.socket(socket.{family}).connect({place}); {how}"
    box = create()
    assert "unreachable" in python(box, program)
    (violation,) = engine.violations()
    assert violation == Violation(box.name, " ".join(f"python3 -c {program}".split())[:200], said, 443)
    assert engine.violations() == []


def test_a_look_up_is_refused_at_once_and_said(engine: Engine, create: Callable[..., Sandbox]) -> None:
    box = create()
    began = time.monotonic()
    assert box.run(["getent", "ahosts", "API.example.org"]).returncode == 2
    assert time.monotonic() - began < 4, "it was waited for"
    (violation,) = engine.violations()
    assert violation == Violation(box.name, "getent ahosts API.example.org", "api.example.org", 0)
    assert str(violation) == (
        f"getent ahosts API.example.org in sandbox {box.name} looked up api.example.org, and was refused"
    )
    assert violation.remedy == 'network=Network(allow=["api.example.org:443"])'


def test_so_is_one_by_a_resolver_of_its_own(engine: Engine, create: Callable[..., Sandbox]) -> None:
    python(create(), "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('203.0.113.53', 53))")
    assert wanted(engine) == [("203.0.113.53", 53)]


@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('203.0.113.7', 443))",
        "import socket; socket.create_connection(('127.0.0.1', 443))",
        "import socket; socket.socket(socket.AF_UNIX).connect('/run/nobody')",
        "import socket; socket.socket(socket.AF_UNIX).connect('/run/no')",
        "import socket; socket.getaddrinfo('db', 80)",
        "import socket; socket.gethostbyaddr('203.0.113.7')",
        "import ctypes; ctypes.CDLL(None).connect(99, 1, 16)",
        "import ctypes; ctypes.CDLL(None).connect(99, 0, -1)",
    ],
    ids=["own-address", "loopback", "path", "path-of-16-bytes", "one-label", "reverse", "no-memory", "no-length"],
)
def test_what_could_not_have_gone_outside_is_not_said(
    engine: Engine, create: Callable[..., Sandbox], program: str
) -> None:
    python(create(), program)
    assert engine.violations() == []


def test_what_a_network_has_is_not_said_and_what_it_lacks_is(
    engine: Engine, network: LiveNetwork, create: Callable[..., Sandbox]
) -> None:
    one, _ = create(network), create(network.join("db"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        network.expose("api.example.org", server.getsockname()[1], port=80)
        assert python(one, f"{CONNECT}; print('there')", "api.example.org", 80) == "there"
        # Nobody listens there: that is between the two.
        assert "refused" in python(one, CONNECT, "db", 5432)
        assert wanted(engine) == []
        assert "refused" in python(one, CONNECT, "api.example.org", 443)
        assert "refused" in python(one, CONNECT, network.gateway, 8000)
        assert "not known" in python(one, CONNECT, "other.example.org", 443)
        found = engine.violations()
    assert [(one.name, one.port) for one in found] == [
        ("api.example.org", 443),
        ("host-gateway", 8000),
        ("other.example.org", 0),
    ]
    assert [one.remedy for one in found] == [
        'network=Network(allow=["api.example.org:443"])',
        'network.expose("host-gateway", 8000), for a server of the test',
        'network=Network(allow=["other.example.org:443"])',
    ]


def test_what_is_exposed_at_the_gateway_is_not_said(
    engine: Engine, network: LiveNetwork, create: Callable[..., Sandbox]
) -> None:
    box = create(network)
    with socket.create_server(("127.0.0.1", 0)) as server:
        network.expose("host-gateway", server.getsockname()[1], port=8000)
        assert python(box, f"{CONNECT}; print('there')", network.gateway, 8000) == "there"
        assert "refused" in python(box, CONNECT, network.gateway, 8001)
    assert wanted(engine) == [("host-gateway", 8001)]


def test_what_is_allowed_is_not_said(engine: Engine, create: Callable[..., Sandbox]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        box = create(network=Network(allow=(f"localhost.localdomain:{port}",)))
        python(box, CONNECT, "localhost.localdomain", port)
    assert wanted(engine) == []


def test_one_on_the_hosts_network_is_refused_nothing(engine: Engine, create: Callable[..., Sandbox]) -> None:
    box = create(network="host")
    assert "refused" in python(box, CONNECT, "127.0.0.1", 1)
    assert box.run(["cat", "/proc/self/status"]).stdout
    assert engine.violations() == []


def test_docker_s_resolver_knows_the_names_of_a_network(
    engine: Engine, network: LiveNetwork, create: Callable[..., Sandbox]
) -> None:
    client, server = create(network), create(network.join("db"))
    for name, text in (("resolv.conf", "nameserver 127.0.0.11"), ("hosts", "127.0.0.1 localhost")):
        client.run(["sh", "-c", f"echo {text} > /etc/{name}"], check=True)
    assert str(client.run(["getent", "ahostsv4", "db"], check=True).stdout).split()[0] == server.ip
    assert client.run(["getent", "hosts", "db.example.org"]).returncode == 2
    assert wanted(engine) == [("db.example.org", 0)]


def test_each_is_said_once_and_each_engine_hears_its_own(engine: Engine, create: Callable[..., Sandbox]) -> None:
    box = create()
    with Engine.join(engine.listen(), engine.settings) as other, other.create(SandboxSpec()) as another:
        for _ in range(3):
            python(box, CONNECT, "203.0.113.1", 1)
            python(another, CONNECT, "203.0.113.2", 2)
        assert wanted(other) == [("203.0.113.2", 2)]
        assert wanted(engine) == [("203.0.113.1", 1)]
        python(another, CONNECT, "203.0.113.2", 2)
        # Though the sandbox is gone when it is asked for.
        another.close()
        assert wanted(other) == [("203.0.113.2", 2)]


def test_what_was_made_for_one_is_used_for_the_next_and_each_is_told_apart(
    engine: Engine, create: Callable[..., Sandbox]
) -> None:
    names = []
    for number in range(6):
        box = create()
        python(box, CONNECT, f"203.0.113.{number}", 80)
        assert box.run(["getent", "hosts", f"n{number}.example.org"]).returncode == 2
        names.append(box.name)
        box.close()
    found = engine.violations()
    assert [one.sandbox for one in found] == [name for name in names for _ in range(2)]
    assert [one.name for one in found[1::2]] == [f"n{number}.example.org" for number in range(6)]


def test_many_at_once_all_go_on(engine: Engine, create: Callable[..., Sandbox]) -> None:
    program = """
import socket, threading
def go(number):
    one = socket.socket()
    try:
        one.connect((f"203.0.113.{number}", 80))
    except OSError as error:
        assert "unreachable" in str(error), error
        done.append(number)
done = []
threads = [threading.Thread(target=go, args=(number,)) for number in range(100)]
for one in threads:
    one.start()
for one in threads:
    one.join()
print(len(done))
"""
    assert python(create(), program) == "100"
    assert {violation.name for violation in engine.violations()} == {f"203.0.113.{number}" for number in range(100)}


def test_one_that_is_killed_while_it_connects_harms_nobody(engine: Engine, create: Callable[..., Sandbox]) -> None:
    spinning = "import socket\nwhile True: socket.socket().connect_ex(('127.0.0.1', 1))"
    for _ in range(10):
        box = create()
        with box.popen(["python3", "-c", f"print(1, flush=True)\n{spinning}"], stdout=PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            box.close()
    box = create()
    assert "unreachable" in python(box, CONNECT, "203.0.113.7", 1)
    assert wanted(engine) == [("203.0.113.7", 1)]


def test_a_program_that_hides_from_others_is_not_kept_from_connecting(
    engine: Engine, create: Callable[..., Sandbox]
) -> None:
    del engine
    box = create()
    undumpable = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)"
    assert "refused" in python(box, f"{undumpable}; {CONNECT}", "127.0.0.1", 1)


def test_the_command_line_is_cut_and_has_no_lines() -> None:
    assert "\n" not in program_of(os.getpid())
    assert 0 < len(program_of(os.getpid())) <= 200
    assert program_of(0) == ""


def holders_of(path: str) -> list[int]:
    """Return who has a file open."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if path in [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]:
                found.append(int(pid))
    return found


@pytest.mark.needs("root")
def test_a_run_whose_watch_is_killed_ends_says_why_and_leaves_nothing(store: str) -> None:
    with Engine.open(EngineSettings(store=store)) as engine:
        engine.create(SandboxSpec()).close()
        (watch,) = holders_of(f"{engine.run_directory}/{LOG_NAME}")
        os.kill(watch, signal.SIGKILL)
        with pytest.raises(EngineError) as told:
            for _ in range(1000):
                # One that is being made just then.
                with contextlib.suppress(StartError):
                    engine.create(SandboxSpec()).close()
        assert "the process that watches the networks of this run has died" in str(told.value)
    assert os.listdir(f"{store}/runs") == []
