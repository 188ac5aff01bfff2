"""Services on a terminal, and services whose input has no end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime import SandboxSpec, Service, SpecError, ready

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_sandbox_runtime import Engine, LiveNetwork, LiveService

pytestmark = pytest.mark.needs("overlay-on-host", "networks", "python3")

IS_TERMINAL = "for fd in 0 1 2; do test -t $fd || echo $fd is none; done; tty; stty size; echo $TERM; echo to >/dev/tty"


@pytest.fixture
def start(engine: Engine, network: LiveNetwork) -> Any:
    def start(command: str, **words: Any) -> LiveService:
        return engine.start(Service(command=command, **words), network)

    return start


def ended(service: LiveService) -> tuple[int, str]:
    """How a service has ended, and what it has printed."""
    with service:
        return service.process.wait(30), service.logs()


def test_a_service_has_a_terminal_and_what_it_prints_there_is_its_log(start: Any) -> None:
    assert ended(start(IS_TERMINAL, tty=True)) == (0, "/dev/pts/0\r\n24 80\r\nxterm\r\nto\r\n")
    assert ended(start("tty", tty=False)) == (1, "not a tty\n")


def test_the_last_word_is_in_the_log_when_it_has_ended(start: Any) -> None:
    for _ in range(20):
        status, said = ended(start("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exit 3", tty=True))
        assert (status, said.count("\r\n"), said[-11:]) == (3, 2000, "line 1999\r\n")


def test_more_than_a_terminal_holds_goes_on_at_once(start: Any) -> None:
    status, said = ended(start("head -c 3000000 /dev/zero | tr '\\0' x", tty=True))
    assert (status, len(said)) == (0, 3_000_000)


def test_it_can_be_waited_for_by_what_it_prints(start: Any) -> None:
    with start("echo up; exec sleep 1000", tty=True, ready=ready.log("up")) as service:
        assert service.process.poll() is None


@pytest.mark.parametrize("words", [{"tty": True}, {"stdin_open": True}, {"tty": True, "stdin_open": True}])
def test_its_input_has_no_end(start: Any, words: dict[str, bool]) -> None:
    can_be_read = ["python3", "-c", "import select; print(select.select([0], [], [], 0)[0])"]
    assert ended(start(can_be_read, **words))[1].split() == ["[]"]
    assert ended(start(can_be_read)) == (0, "[0]\n")


def test_one_that_fails_has_a_terminal_again(start: Any) -> None:
    said = ended(start("tty; stty size; exit 1", tty=True, restart="on-failure:2"))
    assert said == (1, "/dev/pts/0\r\n24 80\r\n" * 3)


def test_one_that_closes_its_terminal_goes_on(start: Any) -> None:
    command = "echo closing; exec </dev/null >/tmp/out 2>&1; echo on; touch /tmp/done; exec sleep 1000"
    with start(command, tty=True, ready=ready.file("/tmp/done")) as service:
        assert service.run(["cat", "/tmp/out"]).stdout == "on\n"
        assert service.logs() == "closing\r\n"


def test_what_it_leaves_behind_holds_nobody_up(start: Any) -> None:
    status, said = ended(start("(trap '' HUP; exec sleep 1000) & echo left", tty=True))
    assert (status, said) == (0, "left\r\n")


def test_init_goes_on_with_other_commands(start: Any) -> None:
    with start("yes", tty=True) as service:
        assert service.run(["echo", "other"], timeout=30).stdout == "other\n"


def test_what_is_printed_goes_to_a_file_only(engine: Engine, tmp_path: Path) -> None:
    with engine.create(SandboxSpec()) as sandbox:
        with pytest.raises(SpecError, match="what is printed on a terminal goes to a file\n  hint: stdout=open"):
            sandbox.popen(["true"], tty=True)
        with open(tmp_path / "out", "wb") as out, sandbox.popen(["tty"], stdout=out, tty=True) as process:
            assert process.wait(30) == 0
        assert (tmp_path / "out").read_bytes() == b"/dev/pts/0\r\n"
