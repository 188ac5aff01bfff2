"""``runner = sandbox``: commands run in a copy of the machine, and everything else is as tox has it."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
from typing import IO, TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tox.conftest import Project

pytestmark = pytest.mark.needs("overlay-on-host")

INI = """
    [tox]
    no_package = true
    [testenv]
    skip_install = true
    runner = sandbox
    allowlist_externals = sh
"""


def test_what_commands_change_is_gone_but_in_the_environment_and_where_it_is_to_be_kept(project: Project) -> None:
    project.write("data.txt", "as it was")
    project.write("reports/log", "empty")
    project.write(
        "tox.ini",
        INI
        + """
    sandbox_keep = reports
        made/here/
    commands_pre = sh -c "echo pre > state; echo other > data.txt"
    commands =
        sh -c "cat state data.txt"
        sh -c "echo 1 > {env_dir}/one; echo 2 > reports/two; echo 3 > made/here/three; rm reports/log data.txt tox.ini"
    commands_post = sh -c "ls; cat reports/two"
    """,
    )
    out = project.tox("-q")
    assert "pre\nother\n" in out
    assert "\nmade\nreports\nstate\n2\n" in out
    assert sorted(os.listdir(project.root)) == [".tox", "data.txt", "made", "reports", "tox.ini"]
    assert (project.root / "data.txt").read_text() == "as it was"
    assert (project.root / ".tox/py/one").read_text() == "1\n"
    assert (project.root / "made/here/three").read_text() == "3\n"
    assert os.listdir(project.root / "reports") == ["two"]


def test_commands_have_the_environments_python_and_variables(project: Project) -> None:
    (project.root / "sub").mkdir()
    project.write(
        "print.py",
        """
        import os, sys
        print(sys.prefix, os.getcwd(), os.environ["GIVEN"], os.environ["PASSED"], os.environ.get("LEFT"))
        print(os.uname().nodename, len([name for name in os.listdir("/proc") if name.isdigit()]) < 10)
        """,
    )
    project.write(
        "tox.ini",
        INI
        + """
    set_env = GIVEN = {env_name}
    pass_env = PASSED
    change_dir = sub
    commands = python ../print.py {posargs}
    """,
    )
    project.env |= {"PASSED": "passed", "LEFT": "left"}
    out = project.tox("-q")
    assert f"{project.root}/.tox/py {project.root}/sub py passed None\nsandbox True\n" in out
    assert "sandbox True" in project.tox("exec", "-q", "--", "python", "../print.py")


def test_exit_codes_and_their_prefixes_are_toxs(project: Project) -> None:
    project.write(
        "tox.ini",
        INI
        + """
    commands =
        - sh -c "exit 7"
        ! sh -c "exit 8"
        err: sh -c "exit 9"
        sh -c "echo on; kill -9 $$"
        sh -c "echo never"
    [testenv:go-on]
    ignore_errors = true
    commands = sh -c "exit 4"
        sh -c "echo went on"
    """,
    )
    out = project.tox("-e", "py", status=-signal.SIGKILL & 0xFF)
    assert "command failed but is marked ignore outcome" in out
    assert "exit -9" in out
    assert "never\n" not in out
    assert project.tox("-e", "err", status=9)
    assert "went on\n" in project.tox("-e", "go-on", status=4)


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("nosuchprogram --x", 2, "Exception running subprocess [Errno 2] No such file or directory: 'nosuchprogram'"),
        ("cat /etc/passwd", 1, "failed with cat is not allowed, use allowlist_externals to allow it"),
        ("/bin/cat /etc/passwd", 1, "failed with /bin/cat"),
        ("./tox.ini", 126, "/tox.ini is there, but what would run it is not"),
    ],
)
def test_a_command_that_cannot_run_is_toxs_own_error(project: Project, command: str, status: int, said: str) -> None:
    project.write("tox.ini", f"{INI}\n    [testenv:py]\n    allowlist_externals = *.ini\n    commands = {command}\n")
    (project.root / "tox.ini").chmod(0o755)
    assert said in project.tox(status=status)


def test_output_keeps_its_streams_and_nothing_is_lost(project: Project) -> None:
    project.write("print.py", "import sys\nfor n in range(20_000):\n    print(n, 'x' * 50, file=sys.stderr)\n")
    project.write("tox.ini", f"{INI}\n    commands = python print.py\n        sh -c 'cat; (sleep 100 &); echo end'\n")
    lines = project.tox("-q").splitlines()
    assert [line for line in lines if line.endswith("x" * 50)] == [f"{n} {'x' * 50}" for n in range(20_000)]
    assert "end" in lines


def test_a_command_has_the_terminal_that_tox_has(project: Project) -> None:
    project.write(
        "ask.py", "import os, sys\nprint(sys.stdout.isatty(), os.get_terminal_size(1))\nprint('got', input())\n"
    )
    project.write("tox.ini", f"{INI}\n    commands = python ask.py\n")
    master, slave = os.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))
    try:
        with project.start(stdin=slave, stdout=slave) as process:
            os.close(slave)
            os.write(master, b"hello\n")
            assert process.wait() == 0
        out = os.read(master, 65536).decode()
    finally:
        os.close(master)
    assert "True os.terminal_size(columns=100, lines=40)\r" in out
    assert "got hello\r" in out


def test_an_interrupt_reaches_the_command_and_what_it_has_started(project: Project) -> None:
    project.write(
        "wait.py",
        """
        import signal, sys
        signal.signal(signal.SIGINT, lambda *_: sys.exit("told to end"))
        print("ready", flush=True)
        signal.pause()
        """,
    )
    project.write(
        "tox.ini",
        INI
        + """
    interrupt_timeout = 60
    commands = sh -c "python wait.py; exit 5"
    """,
    )
    with project.start() as process:
        assert process.stdout is not None
        said = read_to(process.stdout, "ready\n")
        process.send_signal(signal.SIGINT)
        said += process.stdout.read()
    assert process.returncode != 0, said
    assert "requested interrupt of process" in said
    assert "told to end\n" in said
    assert "SIGTERM" not in said


def test_a_command_that_does_not_end_is_killed(project: Project) -> None:
    ignore = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; print('ready', flush=True); "
    project.write("tox.ini", f'{INI}\n    commands = python -c "{ignore} signal.pause()"\n')
    with project.start() as process:
        assert process.stdout is not None
        said = read_to(process.stdout, "ready\n")
        process.send_signal(signal.SIGINT)
        said += process.stdout.read()
    assert [word for word in ("SIGINT(2)", "SIGTERM(15)", "SIGKILL(9)") if word in said] == [
        "SIGINT(2)",
        "SIGTERM(15)",
        "SIGKILL(9)",
    ]


def test_nothing_survives_a_tox_that_is_killed(project: Project, tmp_path: Path) -> None:
    project.write(
        "tox.ini",
        f"""{INI}
    sandbox_keep = pipe
    commands = sh -c "exec 3> pipe; echo ready; (sleep 1000 &); exec sleep 1000"
    """,
    )
    os.mkfifo(project.root / "pipe")
    with project.start() as process:
        assert process.stdout is not None
        with (project.root / "pipe").open() as pipe:
            read_to(process.stdout, "ready\n")
            process.kill()
            assert pipe.read() == ""  # its end: all that could write to it are dead
    # What a kill leaves on disk the next run removes.
    project.write("tox.ini", f'{INI}\n    commands = sh -c "true"\n')
    project.tox("-q")


def test_a_host_that_can_make_no_sandbox_says_why(project: Project) -> None:
    project.write("tox.ini", f'{INI}\n    commands = sh -c "true"\n')
    project.env["PYTEST_SANDBOX_HOME"] = "/proc/nowhere"
    said = project.fails()
    assert "failed with environment py: cannot write to the store /proc/nowhere" in said
    assert "hint: set PYTEST_SANDBOX_HOME" in said


@pytest.mark.needs("cgroup-memory")
def test_a_command_that_wants_more_memory_than_it_may_have_is_killed(project: Project) -> None:
    project.write("tox.ini", f'{INI}\n    sandbox_memory = 64M\n    commands = python -c "bytearray(1 << 28)"\n')
    assert "the command was killed: out of memory" in project.tox(status=-signal.SIGKILL & 0xFF)


@pytest.mark.needs("static-busybox")
def test_commands_run_in_another_image(project: Project, busybox_tar: Path, tmp_path: Path) -> None:
    project.write("data.txt", "of the project\n")
    project.env["HOME"] = str(tmp_path)  # where the image has nothing
    project.write(
        "tox.ini",
        f"""{INI}
    sandbox_image = {busybox_tar}
    commands = sh -c "cat data.txt > {{env_dir}}/copy; echo changed > data.txt; cat data.txt; echo $HOME; ls /"
        busybox true
    """,
    )
    out = project.tox("-q", status=1)
    assert "changed\n/root\n" in out
    assert (project.root / "data.txt").read_text() == "of the project\n"
    assert "usr" not in out
    assert "busybox (resolves to /bin/busybox) is not allowed" in out
    assert (project.root / ".tox/py/copy").read_text() == "of the project\n"


def read_to(stream: IO[str], line: str) -> str:
    said = ""
    for one in stream:
        said += one
        if one == line:
            return said
    pytest.fail(f"{line!r} was not printed, but {said}")
