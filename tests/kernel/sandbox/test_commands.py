"""Commands in a sandbox: what they are given, what they print, how they end."""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.command import PATH
from pytest_sandbox_runtime.engine import Engine
from pytest_sandbox_runtime.errors import (
    CommandError,
    CommandFailedError,
    CommandNotFoundError,
    CommandTimeoutError,
    SpecError,
)
from pytest_sandbox_runtime.process import PIPE, STDOUT
from pytest_sandbox_runtime.sandbox import Sandbox
from pytest_sandbox_runtime.specs import SandboxSpec

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.needs("overlay-on-host")

MIB = 1 << 20


def printed(box: Sandbox, command: str | list[str]) -> str:
    return str(box.run(command, check=True).stdout)


def assert_readable(file: IO[bytes]) -> None:
    """Fail, not hang, where nothing comes."""
    assert select.select([file], [], [], 10)[0]


# Commands


def test_a_list_is_an_argv_and_its_output_is_text(box: Sandbox) -> None:
    outcome = box.run(["printf", "%s|", "a b", "$HOME", "ü"])
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "a b|$HOME|ü|", "")


def test_a_string_goes_to_the_shell(box: Sandbox) -> None:
    outcome = box.run("echo out; echo err >&2; exit 3")
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (3, "out\n", "err\n")
    assert str(outcome).endswith("ended with exit status 3")


def test_bytes_come_as_they_are(box: Sandbox) -> None:
    everything = bytes(range(256))
    assert box.run(["cat"], input=everything, text=False).stdout == everything


def test_text_that_is_not_utf8_survives_both_ways(box: Sandbox) -> None:
    text = str(box.run(["printf", r"\377\303"]).stdout)
    assert text.encode("utf-8", "surrogateescape") == b"\xff\xc3"
    assert box.run(["cat"], input=text, text=False).stdout == b"\xff\xc3"


def test_input_may_be_a_file(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"from a file")
    with (tmp_path / "input").open("rb") as file:
        assert box.run(["cat"], input=file).stdout == "from a file"


def test_output_may_go_to_a_file(box: Sandbox, tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as file:
        assert box.run("echo out; echo err >&2", stdout=file, stderr=STDOUT).stdout == ""
    assert (tmp_path / "output").read_text() == "out\nerr\n"


def test_without_input_there_is_none(box: Sandbox) -> None:
    assert printed(box, ["cat"]) == ""


def test_input_that_nobody_reads_is_no_error(box: Sandbox) -> None:
    assert box.run(["true"], input=bytes(MIB)).returncode == 0


@pytest.mark.parametrize("status", [0, 1, 42, 127, 255])
def test_an_exit_status_is_reported(box: Sandbox, status: int) -> None:
    assert box.run(f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE])
def test_a_signal_is_its_negative_number(box: Sandbox, number: signal.Signals) -> None:
    outcome = box.run(f"kill -{number.value} $$")
    assert outcome.returncode == -number
    assert str(outcome).endswith(f"was killed by {number.name}")


def test_check_raises_with_what_was_printed(box: Sandbox) -> None:
    with pytest.raises(CommandFailedError, match=r"(?s)exit status 3.*why it failed") as caught:
        box.run("echo why it failed >&2; exit 3", check=True)
    assert isinstance(caught.value, subprocess.CalledProcessError)
    assert pickle.loads(pickle.dumps(caught.value)).stderr == "why it failed\n"


def test_a_missing_program_is_an_error_and_not_127(box: Sandbox) -> None:
    with pytest.raises(CommandNotFoundError, match="there is no program 'no-such-program' in the sandbox") as caught:
        box.run(["no-such-program"])
    assert isinstance(caught.value, FileNotFoundError)
    assert PATH in caught.value.hint


def test_a_program_that_may_not_be_run_says_so(box: Sandbox) -> None:
    with pytest.raises(CommandError, match="cannot run '/etc/passwd': Permission denied"):
        box.run(["/etc/passwd"])


def test_a_script_without_its_interpreter_says_so(box: Sandbox) -> None:
    box.run("printf '#!/no/such/interpreter\\n' > /tmp/script; chmod +x /tmp/script", check=True)
    with pytest.raises((CommandError, CommandNotFoundError), match="/tmp/script"):
        box.run(["/tmp/script"])


@pytest.mark.parametrize("command", [[], ["a\0b"]])
def test_what_is_no_command_is_refused(box: Sandbox, command: list[str]) -> None:
    with pytest.raises(SpecError, match="is no command"):
        box.run(command)


def test_a_command_runs_where_it_is_told(box: Sandbox, engine: Engine) -> None:
    assert printed(box, ["pwd"]) == "/\n"
    assert box.run(["pwd"], workdir="/usr").stdout == "/usr\n"
    with engine.create(SandboxSpec(workdir="/var")) as sandbox:
        assert printed(sandbox, ["pwd"]) == "/var\n"


def test_a_missing_workdir_is_an_error(box: Sandbox, engine: Engine) -> None:
    with pytest.raises(CommandError, match="in /no/such/place: No such file or directory"):
        box.run(["true"], workdir="/no/such/place")
    with pytest.raises(SpecError, match="workdir /no/such/place is no directory in the host"):
        engine.create(SandboxSpec(workdir="/no/such/place"))


def test_an_unknown_user_is_an_error(box: Sandbox, engine: Engine) -> None:
    with pytest.raises(SpecError, match="user 'nobody-at-all' does not exist in the sandbox"):
        box.run(["true"], user="nobody-at-all")
    with pytest.raises(SpecError, match="user 'nobody-at-all' does not exist in the sandbox"):
        engine.create(SandboxSpec(user="nobody-at-all"))


def test_root_can_be_had_by_everyone(engine: Engine) -> None:
    with engine.create(SandboxSpec(user="root")) as sandbox:
        assert printed(sandbox, ["id", "-u"]) == "0\n"


@pytest.mark.needs("root")
def test_a_command_runs_as_the_user_it_is_told(box: Sandbox) -> None:
    assert box.run(["id", "-un"], user="nobody").stdout == "nobody\n"
    assert box.run(["id", "-u"], user=12345).stdout == "12345\n"


# Time-outs


def test_a_time_out_keeps_what_was_printed(box: Sandbox) -> None:
    with pytest.raises(CommandTimeoutError, match=r"did not end within 0\.2 s") as caught:
        box.run("echo before; echo trouble >&2; sleep 1000", timeout=0.2)
    assert (caught.value.outcome.stdout, caught.value.outcome.stderr) == ("before\n", "trouble\n")
    assert caught.value.outcome.returncode == -signal.SIGKILL
    assert isinstance(caught.value, subprocess.TimeoutExpired)


def test_a_time_out_kills_the_whole_group(box: Sandbox) -> None:
    with box.popen("echo before; sleep 1000 & sleep 1000") as process:
        with pytest.raises(CommandTimeoutError) as caught:
            process.communicate(timeout=0.2)
        assert caught.value.outcome.stdout == b"before\n"
        # The end of this pipe comes only once nobody can write to it.
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), True)
        assert_readable(process.stdout)
        assert process.stdout.read(1) == b""


def test_a_spec_has_the_time_out_of_its_commands(engine: Engine) -> None:
    with engine.create(SandboxSpec(timeout=0.2)) as sandbox, pytest.raises(CommandTimeoutError):
        sandbox.run(["sleep", "1000"])


def test_a_daemon_that_keeps_the_pipes_holds_nobody_up(box: Sandbox) -> None:
    assert box.run("sleep 1000 & echo started", timeout=30).stdout == "started\n"


# Live processes


def test_a_process_talks_through_its_pipes(box: Sandbox) -> None:
    with box.popen(["cat"], stdin=PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\n")
        assert process.stdout.readline() == b"one\n"
        assert process.poll() is None
        process.stdin.write(b"two\n")
        assert process.stdout.readline() == b"two\n"
        process.stdin.close()
        assert process.wait(30) == 0
        assert process.poll() == 0


def test_a_wait_that_times_out_leaves_the_process_alone(box: Sandbox) -> None:
    with box.popen(["sleep", "1000"]) as process:
        with pytest.raises(CommandTimeoutError):
            process.wait(0.01)
        assert process.poll() is None
        process.kill()
        assert process.wait(30) == -signal.SIGKILL
        process.kill()


def test_a_process_can_be_sent_any_signal(box: Sandbox) -> None:
    with box.popen("trap 'echo hangup; exit 5' HUP; echo ready; while :; do sleep 0.01; done") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 5
        assert process.stdout.readline() == b"hangup\n"


def test_a_closed_process_has_ended(box: Sandbox) -> None:
    with box.popen(["sleep", "1000"]) as process:
        pass
    assert process.returncode == -signal.SIGKILL
    assert process.stdout is not None
    assert process.stdout.closed
    process.close()


def test_run_takes_and_returns_megabytes(box: Sandbox) -> None:
    data = os.urandom(16 * MIB)
    assert box.run(["cat"], input=data, text=False).stdout == data


def test_commands_run_side_by_side(box: Sandbox) -> None:
    processes = [box.popen(["cat"], stdin=PIPE) for _ in range(20)]
    for number, process in enumerate(reversed(processes)):
        assert process.communicate(b"%d" % number, 30)[0] == b"%d" % number
        process.close()
