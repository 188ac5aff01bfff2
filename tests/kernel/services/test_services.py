"""Services: started in order, waited for, and ended as they want to be."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import (
    CommandNotFoundError,
    SandboxError,
    SandboxSpec,
    Service,
    ServiceError,
    SpecError,
    ready,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_sandbox_runtime import Engine, LiveNetwork

pytestmark = pytest.mark.needs("overlay-on-host", "networks", "python3")

# Listens only after it was told so, by a file.
LATE = """
import os, socket
print("waiting", flush=True)
while not os.path.exists("/tmp/go"):
    os.stat("/")
server = socket.create_server(("", 8000))
print("serving", flush=True)
server.accept()
"""
HTTP = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    tries = 0
    def do_GET(self):
        Handler.tries += 1
        self.send_response(200 if self.path == "/health" and Handler.tries > 3 else 503)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("", 8000), Handler).serve_forever()
"""
PATIENT = """
import signal, sys
def leave(*_):
    print("closing", flush=True)
    sys.exit(7)
signal.signal(signal.SIGINT, leave)
print("up", flush=True)
signal.pause()
"""


def python(program: str) -> tuple[str, ...]:
    return ("python3", "-c", program)


def test_a_service_is_ready_when_it_listens(engine: Engine, network: LiveNetwork) -> None:
    echo = "import socket; s = socket.create_server(('', 8000)); c, _ = s.accept(); c.sendall(c.recv(9)); s.accept()"
    with engine.start(Service(command=python(echo), ports=(8000,)), network) as live:
        with socket.create_connection(live.address()) as connection:
            connection.sendall(b"hello")
            assert connection.recv(9) == b"hello"
        assert live.url("/x") == f"http://127.0.0.1:{live.address()[1]}/x"
        assert live.url(inside=True) == f"http://{live.ip}:8000/"


def test_what_is_waited_for_may_come_late(engine: Engine, network: LiveNetwork) -> None:
    late = Service(command=python(LATE), ready=ready.log("waiting"))
    with engine.start(late, network) as live:
        with pytest.raises(ServiceError, match=r"was not ready after 0\.1 s: waited for port 8000/tcp"):
            live.wait(ready.port(8000), timeout=0.1)
        live.sandbox.write_text("/tmp/go", "")
        live.wait(ready.all_of(ready.port(8000), ready.log("^serving"[1:]), ready.file("/tmp/go")))


def test_any_of_is_one_of_them(engine: Engine, network: LiveNetwork) -> None:
    either = ready.any_of(ready.log("never said"), ready.command("test -e /etc/passwd"))
    with engine.start(Service(command="sleep 1000", ready=either), network) as live:
        live.check()


def test_http_is_asked_until_the_status_is_the_one(engine: Engine, network: LiveNetwork) -> None:
    service = Service(command=python(HTTP), ready=ready.http("/health"), ports=(8000,), timeout=20)
    with engine.start(service, network):
        pass
    wrong = Service(command=python(HTTP), ready=ready.http("/other"), ports=(8000,), timeout=0.5)
    with pytest.raises(ServiceError, match="waited for status 200 of /other"):
        engine.start(wrong, network)


def test_one_that_ends_at_once_is_told_with_how_and_its_last_lines(engine: Engine, network: LiveNetwork) -> None:
    failing = "for n in $(seq 30); do echo line $n; done; echo 'cannot open database' >&2; exit 3"
    with pytest.raises(ServiceError) as told:
        engine.start(Service(command=failing, name="db", ports=(5432,)), network)
    said = str(told.value)
    assert "service db was not ready after" in said
    assert "waited for port 5432/tcp\nits process has ended with status 3\nthe last 20 lines that it printed:" in said
    assert said.endswith("\n  line 30\n  cannot open database")
    assert "line 11\n" not in said


def test_one_that_never_gets_ready_is_told_with_who_listens(engine: Engine, network: LiveNetwork) -> None:
    other = "import socket; s = socket.create_server(('', 81)); print('on 81', flush=True); s.accept()"
    with pytest.raises(ServiceError) as told:
        engine.start(Service(command=python(other), ports=(80,), timeout=2), network)
    assert "was not ready after 2.0 s: waited for port 80/tcp\nits process runs, as pid " in str(told.value)
    assert "who listens there: 0.0.0.0:81/tcp\nthe last 1 lines that it printed:\n  on 81\n  hint: " in str(told.value)


def test_one_that_forks_away_is_told_to_stay(engine: Engine, network: LiveNetwork) -> None:
    with pytest.raises(ServiceError, match="has ended with status 0(.|\n)*hint: a service stays in the foreground"):
        engine.start(Service(command="sleep 1000 & echo started", ports=(80,)), network)


def test_one_that_was_killed_is_told_by_the_signal(engine: Engine, network: LiveNetwork) -> None:
    with pytest.raises(ServiceError, match="its process was killed by SIGKILL"):
        engine.start(Service(command="kill -9 $$", ports=(80,)), network)


def test_a_program_that_is_missing_is_told(engine: Engine, network: LiveNetwork) -> None:
    with pytest.raises(CommandNotFoundError, match="there is no program 'nothing-of-the-kind'"):
        engine.start(Service(command=["nothing-of-the-kind"]), network)


def test_a_command_of_a_readiness_check_that_is_missing_is_told(engine: Engine, network: LiveNetwork) -> None:
    with pytest.raises(ServiceError, match=r"the readiness check status 0 of none cannot run: there is no program"):
        engine.start(Service(command="sleep 1000", ready=ready.command(["none"])), network)


def test_a_service_without_a_command_is_told(engine: Engine, network: LiveNetwork) -> None:
    with pytest.raises(ServiceError, match="has no command, and neither has its image"):
        engine.start(Service(), network)


def test_dependencies_are_ready_first_found_by_name_and_started_once(engine: Engine, network: LiveNetwork) -> None:
    database = Service(command="echo up; exec sleep 1000", name="db", ready=ready.log("up"))
    lookup = "getent hosts {} && echo found && exec sleep 1000"
    one = Service(command=lookup.format("db"), name="one", depends_on=(database,), ready=ready.log("found"))
    two = Service(command=lookup.format("db"), name="two", depends_on=(database,), ready=ready.log("found"))
    app = Service(command=lookup.format("one") + " " + "two", depends_on=(one, two), ready=ready.log("found"))
    with engine.start(app, network) as live:
        assert sorted(str(other.service.name) for other in live.dependencies) == ["db", "one", "two"]
        others = live.dependencies
    assert all("closed" in repr(other) for other in others)


def test_a_dependency_that_fails_is_the_error_and_nothing_stays(engine: Engine, network: LiveNetwork) -> None:
    bad = Service(command="echo broken; exit 1", name="bad", ports=(1,))
    good = Service(command="echo up; exec sleep 1000", name="good", ready=ready.log("up"))
    with pytest.raises(ServiceError, match="service bad was not ready"):
        engine.start(Service(command="sleep 1000", depends_on=(good, bad)), network)


def test_two_services_of_one_name_are_refused(engine: Engine, network: LiveNetwork) -> None:
    one, other = (Service(command=f"sleep {time}", name="db") for time in (1000, 1001))
    with pytest.raises(SpecError, match="two services have the name 'db'"):
        engine.start(Service(command="sleep 1000", depends_on=(one, other)), network)


def test_it_is_stopped_by_its_own_signal_and_says_how_it_ended(engine: Engine, network: LiveNetwork) -> None:
    service = Service(command=python(PATIENT), stop_signal="SIGINT", ready=ready.log("up"))
    with engine.start(service, network) as live:
        assert live.stop() == 7
        assert live.logs() == "up\nclosing\n"
        with pytest.raises(ServiceError, match="is gone: its process has ended with status 7(.|\n)*closing"):
            live.check()


def test_one_that_does_not_stop_is_killed(engine: Engine, network: LiveNetwork) -> None:
    service = Service(command="trap '' TERM; echo up; sleep 1000 & wait", ready=ready.log("up"), stop_timeout=0.2)
    with engine.start(service, network) as live:
        assert live.stop() == -9


def test_a_restart_keeps_the_files(engine: Engine, network: LiveNetwork) -> None:
    counting = "echo x >> /tmp/starts; wc -l < /tmp/starts; echo ready; exec sleep 1000"
    with engine.start(Service(command=counting, ready=ready.log("ready")), network) as live:
        live.restart()
        live.wait(ready.log("2\nready"))
        assert live.logs() == "1\nready\n2\nready\n"


def test_bytes_that_are_no_text_are_in_the_log_all_the_same(engine: Engine, network: LiveNetwork) -> None:
    with engine.start(Service(command=r"printf '\377up'; exec sleep 1000", ready=ready.log("up")), network) as live:
        assert live.logs() == "\udcffup"


def test_only_what_was_not_seen_is_told(engine: Engine, network: LiveNetwork) -> None:
    both = ready.all_of(ready.port(80), ready.log("up"), ready.file("/nowhere"))
    with pytest.raises(ServiceError, match=r"waited for port 80/tcp and the file /nowhere\n"):
        engine.start(Service(command="echo up; sleep 1000", ready=both, timeout=0.2), network)


def test_one_that_has_ended_can_be_waited_for_by_what_it_has_said(engine: Engine, network: LiveNetwork) -> None:
    with engine.start(Service(command="echo done"), network) as live:
        assert live.process.wait(5) == 0
        live.wait(ready.log("done"))
        with pytest.raises(ServiceError, match="has ended with status 0"):
            live.wait(ready.log("never"))


def test_a_sandbox_is_waited_for_too(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as sandbox, sandbox.popen("sleep 0.1; touch /tmp/there; sleep 1000") as process:
        sandbox.wait_for(ready.all_of(ready.file("/tmp/there"), ready.command("true")))
        with pytest.raises(
            ServiceError, match=r"was not ready after 0\.1 s: waited for port 80/tcp\nwho listens there: nobody"
        ):
            sandbox.wait_for(ready.port(80), timeout=0.1)
        assert process.poll() is None


def test_a_seed_needs_an_image(engine: Engine, network: LiveNetwork, tmp_path: Path) -> None:
    service = Service(command="sleep 1000").seed("true", inputs=[tmp_path])
    with pytest.raises(SandboxError, match="is a copy of this machine, which cannot become an image to seed"):
        engine.start(service, network)


COUNT = "echo x >> /tmp/starts; n=$(wc -l < /tmp/starts); echo start $n; [ $n -ge {} ] && exec sleep 1000; exit {}"


def test_one_that_fails_is_started_again(engine: Engine, network: LiveNetwork) -> None:
    service = Service(command=COUNT.format(3, 1), restart="on-failure", ready=ready.log("start 3"))
    with engine.start(service, network) as live:
        live.check()
        assert live.process.restarts == 2
        assert live.logs() == "start 1\nstart 2\nstart 3\n"


def test_it_is_started_again_as_often_as_it_may_be(engine: Engine, network: LiveNetwork) -> None:
    service = Service(command=COUNT.format(9, 4), restart="on-failure:2", ready=ready.log("start 9"))
    with pytest.raises(ServiceError, match="has ended with status 4(.|\n)*start 1\n  start 2\n  start 3$"):
        engine.start(service, network)


def test_one_that_ends_well_is_started_again_where_that_is_always(engine: Engine, network: LiveNetwork) -> None:
    once = Service(command=COUNT.format(9, 0), restart="on-failure", ready=ready.log("start 2"))
    with pytest.raises(ServiceError, match="has ended with status 0"):
        engine.start(once, network)
    always = Service(command=COUNT.format(2, 0), restart="always", ready=ready.log("start 2"))
    with engine.start(always, network) as live:
        assert live.stop() == -15
        assert live.logs() == "start 1\nstart 2\n"


def test_a_policy_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError, match="restart='sometimes' is no policy\n  hint: no, always, on-failure"):
        Service(command="true", restart="sometimes")
