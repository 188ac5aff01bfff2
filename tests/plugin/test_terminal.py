"""A person at a terminal: a shell in a sandbox, by the command and by --sandbox-shell, and bodies that talk to them."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("overlay-on-host")

SHELL = [sys.executable, "-c", "import sys; from pytest_sandbox.cli import main; sys.exit(main(['shell']))"]
PATIENCE = 20
PROMPT = "# " if os.geteuid() == 0 else "$ "


class Person:
    """Sits before a terminal on which ``process`` runs."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._master = master
        self._seen = b""

    def see(self, expected: str) -> str:
        """Return what was printed up to ``expected``, which is not seen again."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        while expected.encode() not in self._seen:
            assert poll.poll(PATIENCE * 1000), f"{expected!r} was not printed, but {self._seen!r}"
            self._seen += self._read()
        before, _, self._seen = self._seen.partition(expected.encode())
        return before.decode(errors="replace")

    def _read(self) -> bytes:
        try:
            return os.read(self._master, 65536)
        except OSError:
            pytest.fail(f"the terminal was hung up, after {self._seen!r}")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def person_at(command: list[str], store: Path) -> Iterator[Person]:
    """Start ``command`` on a terminal of 40 rows and 100 columns, which must be as it was in the end."""
    master, slave = os.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))
    before = termios.tcgetattr(slave)
    env = {**os.environ, "PYTEST_SANDBOX_HOME": str(store), "TERM": "dumb"}
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=env,
        preexec_fn=take_terminal,  # noqa: PLW1509  there is one thread
    )
    try:
        with process:
            try:
                yield Person(master, process)
            finally:
                process.kill()
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_a_shell_has_the_terminals_size_and_follows_it(tmp_path: Path) -> None:
    with person_at(SHELL, tmp_path) as person:
        person.type("stty size; hostname\n")
        person.see("40 100\r\nsandbox\r\n")
        # wait(1) is what a trapped signal interrupts.
        person.type("sh -c \"trap 'stty size; exit' WINCH; echo rea''dy; sleep 1000 & wait\"\n")
        person.see("ready\r\n")
        person.resize(50, 120)
        # The sleep that is left behind holds the terminal open, and nobody up.
        person.see("50 120\r\n")
        person.see(PROMPT)
        person.type("exit 7\n")
        assert person.process.wait(PATIENCE) == 7


@pytest.mark.parametrize(("key", "status"), [("\x03", 128 + signal.SIGINT), ("\x1c", 128 + signal.SIGQUIT)])
def test_a_key_that_interrupts_reaches_the_command_and_not_us(tmp_path: Path, key: str, status: int) -> None:
    with person_at(SHELL, tmp_path) as person:
        person.type("sh -c \"echo rea''dy; exec sleep 1000\"\n")
        person.see("ready\r\n")
        person.type(key)
        person.see(PROMPT)
        person.type("echo status $?\n")
        person.see(f"status {status}\r\n")
        assert person.process.poll() is None
        person.type("exit\n")
        person.process.wait(PATIENCE)


def test_the_end_of_input_ends_a_shell(tmp_path: Path) -> None:
    with person_at(SHELL, tmp_path) as person:
        person.type("echo rea''dy\n")
        # What is typed before a prompt is no end of input to readline(3).
        person.see("ready\r\n")
        person.see(PROMPT)
        person.type("\x04")
        assert person.process.wait(PATIENCE) == 0


def test_a_killed_shell_leaves_a_terminal_as_it_was(tmp_path: Path) -> None:
    with person_at(SHELL, tmp_path) as person:
        person.type("kill -9 $$\n")
        assert person.process.wait(PATIENCE) == 128 + signal.SIGKILL


def run_pytest(tmp_path: Path, suite: str, *options: str) -> list[str]:
    (tmp_path / "test_it.py").write_text(suite)
    return [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        *options,
        str(tmp_path),
    ]


DRIVEN = """
def test_fails(sandbox):
    sandbox.write_text("/etc/clue", "the butler")
    assert False

def test_passes(sandbox):
    pass
"""
INSIDE = """
import pathlib, pytest

@pytest.mark.sandbox
def test_fails():
    pathlib.Path("/etc/clue").write_text("the butler")
    assert False

@pytest.mark.sandbox
def test_passes():
    pass
"""


@pytest.mark.parametrize("suite", [DRIVEN, INSIDE], ids=["driven", "inside"])
def test_a_shell_opens_in_the_sandbox_of_a_failed_test(tmp_path: Path, suite: str) -> None:
    with person_at(run_pytest(tmp_path, suite, "--sandbox-shell"), tmp_path / "store") as person:
        person.see("test_it.py::test_fails failed; this is its ")
        person.type("cat /etc/clue; echo; hostname\n")
        person.see("the butler\r\nsandbox\r\n")
        person.type("exit\n")
        assert "Traceback" not in person.see("1 failed, 1 passed")
        assert person.process.wait(PATIENCE) == pytest.ExitCode.TESTS_FAILED


def test_no_shell_opens_where_tests_are_distributed(tmp_path: Path) -> None:
    command = run_pytest(tmp_path, DRIVEN, "--sandbox-shell", "-n", "2")
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--sandbox-shell needs the terminal, which distributed tests have not; leave out -n" in ended.stderr


@pytest.fixture(params=["inside", "foreign"])
def options(request: pytest.FixtureRequest) -> list[str]:
    """Have tests that are marked run in a copy of this machine, or in another image."""
    return [f"--sandbox-image={request.getfixturevalue('image')}"] if request.param == "foreign" else []


TALKS = """
import os, pytest

@pytest.mark.sandbox
def test_talks():
    assert os.isatty(0)
    assert input("who was it? ") == "the butler"
    print("said", os.uname().nodename)
"""


def test_a_body_inside_talks_to_the_person_without_capture(tmp_path: Path, options: list[str]) -> None:
    with person_at(run_pytest(tmp_path, TALKS, "-s", *options), tmp_path / "store") as person:
        person.see("who was it? ")
        person.type("the butler\n")
        person.see("said sandbox\r\n")
        person.see("1 passed")
        assert person.process.wait(PATIENCE) == 0


def test_a_debugger_opens_inside(tmp_path: Path, options: list[str]) -> None:
    with person_at(run_pytest(tmp_path, INSIDE, "--pdb", *options), tmp_path / "store") as person:
        person.see("(Pdb) ")
        person.type("!import os; print(os.uname().nodename, pathlib.Path('/etc/clue').read_text())\n")
        person.see("\nsandbox the butler\r\n")
        person.type("continue\n")
        person.see("1 failed, 1 passed")
        assert person.process.wait(PATIENCE) == pytest.ExitCode.TESTS_FAILED


BREAKS = """
import os, pathlib

def test_first():
    clue = "the butler"
    pathlib.Path("/etc/clue").write_text(clue)
    breakpoint()

def test_second(): pass
"""


@pytest.mark.parametrize("unit", ["test", "session"])
def test_a_breakpoint_is_one_inside(tmp_path: Path, unit: str) -> None:
    with person_at(run_pytest(tmp_path, BREAKS, f"--sandbox={unit}"), tmp_path / "store") as person:
        person.see("(Pdb) ")
        person.type("!print(os.uname().nodename, clue)\n")
        person.see("\nsandbox the butler\r\n")
        person.type("continue\n")
        person.see("2 passed")
        assert person.process.wait(PATIENCE) == 0
