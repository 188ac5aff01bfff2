"""Sandboxes on the real kernel, as whoever runs the tests."""

from __future__ import annotations

import os
import pickle
import platform
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.capabilities import is_privileged
from pytest_sandbox_runtime.command import PATH
from pytest_sandbox_runtime.engine import Engine, EngineSettings
from pytest_sandbox_runtime.errors import (
    CommandError,
    CommandFailedError,
    CommandNotFoundError,
    CommandTimeoutError,
    FileAccessError,
    ImageError,
    SandboxClosedError,
    SpecError,
)
from pytest_sandbox_runtime.kernel.capabilities import mask
from pytest_sandbox_runtime.process import PIPE, STDOUT
from pytest_sandbox_runtime.sandbox import Sandbox
from pytest_sandbox_runtime.specs import Image, SandboxSpec
from pytest_sandbox_runtime.supervisor.confinement import DEFAULT_CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("overlay-on-host")

MIB = 1 << 20
# A copy of the host shows neither its /tmp nor its homes; this, it shows.
SHOWN = "/var/tmp"
needs_python = pytest.mark.needs("python3")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.open(EngineSettings(store=str(tmp_path_factory.mktemp("store")))) as engine:
        yield engine


@pytest.fixture
def box(engine: Engine) -> Iterator[Sandbox]:
    with engine.create(SandboxSpec()) as sandbox:
        yield sandbox


@pytest.fixture
def shown() -> Iterator[Path]:
    """A directory of the host that is seen in copies of it."""
    with tempfile.TemporaryDirectory(prefix="pytest-sandbox-", dir=SHOWN) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of one static busybox."""
    busybox = shutil.which("busybox", path=PATH)
    assert busybox is not None
    root = tmp_path_factory.mktemp("small")
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "run"):
        (root / name).mkdir()
    shutil.copy2(busybox, root / "bin/busybox")
    for name in ("sh", "cat", "ls", "echo", "id"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return root


def printed(box: Sandbox, command: str | list[str]) -> str:
    return str(box.run(command, check=True).stdout)


def statuses(box: Sandbox) -> dict[str, str]:
    lines = printed(box, ["cat", "/proc/self/status"]).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def mount_options(box: Sandbox, target: str) -> list[str]:
    mounts = [line.split() for line in printed(box, ["cat", "/proc/self/mounts"]).splitlines()]
    return [fields[3] for fields in mounts if fields[1] == target][-1].split(",")


def assert_readable(file: IO[bytes]) -> None:
    """Fail, not hang, where nothing comes."""
    assert select.select([file], [], [], 10)[0]


def kill_and_await(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        assert select.select([pidfd], [], [], 10)[0]
    finally:
        os.close(pidfd)


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


# Environment and identity


def test_nothing_of_the_callers_environment_leaks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "secret")
    with engine.create(SandboxSpec()) as sandbox:
        variables = dict(line.split("=", 1) for line in printed(sandbox, ["env"]).splitlines())
    home = "/root" if is_privileged() else os.path.expanduser("~")
    assert variables == {"PATH": PATH, "HOME": home, "LANG": "C.UTF-8", "TZ": "UTC"}


def test_inits_environment_has_no_secret_either(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "secret")
    with engine.create(SandboxSpec(user="root")) as sandbox:
        assert "secret" not in str(sandbox.run("cat /proc/1/environ 2>&1").stdout)


def test_named_variables_are_there(engine: Engine) -> None:
    with engine.create(SandboxSpec(env={"SPEC": "1", "BOTH": "spec"})) as sandbox:
        assert sandbox.run("echo $SPEC $BOTH $CALL", env={"BOTH": "call", "CALL": "2"}).stdout == "1 call 2\n"


def test_the_host_name_is_the_specs(box: Sandbox, engine: Engine) -> None:
    assert printed(box, ["uname", "-n"]) == "sandbox\n"
    with engine.create(SandboxSpec(hostname="db.example")) as sandbox:
        assert printed(sandbox, "uname -n; cat /etc/hostname") == "db.example\ndb.example\n"
    assert platform.node() != "db.example"


def test_the_machine_id_is_fixed_and_not_the_hosts(box: Sandbox, engine: Engine) -> None:
    machine_id = box.read_text("/etc/machine-id")
    assert len(machine_id.strip()) == 32
    with engine.create(SandboxSpec()) as sandbox:
        assert sandbox.read_text("/etc/machine-id") == machine_id
    if os.path.exists("/etc/machine-id"):
        assert Path("/etc/machine-id").read_text(encoding="ascii") != machine_id


def test_init_is_1_and_only_the_sandboxs_processes_are_seen(box: Sandbox) -> None:
    pids = {int(name) for name in printed(box, ["ls", "/proc"]).split() if name.isdigit()}
    assert 1 in pids
    assert len(pids) == 2
    assert max(pids) < 100


@pytest.mark.parametrize("namespace", ["mnt", "pid", "net", "uts", "ipc", "cgroup"])
def test_each_namespace_is_its_own(box: Sandbox, namespace: str) -> None:
    assert printed(box, ["readlink", f"/proc/self/ns/{namespace}"]).strip() != os.readlink(f"/proc/self/ns/{namespace}")


# Network


def test_there_is_loopback_and_nothing_else(box: Sandbox) -> None:
    lines = printed(box, ["cat", "/proc/net/dev"]).splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    assert int(printed(box, ["cat", "/sys/class/net/lo/flags"]), 16) & 1, "loopback is down"


SERVER = """
import socket
server = socket.create_server(("127.0.0.1", 8080))
print("ready", flush=True)
connection, _ = server.accept()
connection.sendall(connection.recv(100).upper())
"""


@needs_python
def test_a_server_inside_answers_outside(box: Sandbox) -> None:
    with box.popen(["python3", "-c", SERVER]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with box.connect(8080) as connection:
            connection.sendall(b"hello")
            assert connection.recv(100) == b"HELLO"
        assert process.wait(30) == 0


@needs_python
def test_two_sandboxes_have_the_same_port(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as one, engine.create(SandboxSpec()) as two:
        for sandbox in (one, two):
            process = sandbox.popen(["python3", "-c", SERVER])
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.close()


def test_a_port_where_nobody_listens_refuses(box: Sandbox) -> None:
    with pytest.raises(ConnectionRefusedError, match="by port 81 of 127.0.0.1 in sandbox"):
        box.connect(81)


# Devices and confinement


def test_the_usual_devices_are_there(box: Sandbox) -> None:
    for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx"):
        assert box.run(["test", "-c", f"/dev/{name}"]).returncode == 0, name
    for name in ("pts", "shm"):
        assert box.run(["test", "-d", f"/dev/{name}"]).returncode == 0, name
    for name in ("stdin", "stdout", "stderr", "fd"):
        assert box.run(["test", "-L", f"/dev/{name}"]).returncode == 0, name
    said = printed(box, "echo lost > /dev/null; head -c 3 /dev/zero | wc -c; echo x > /dev/shm/x && cat /dev/shm/x")
    assert said == "3\nx\n"


@pytest.mark.needs("root")
@pytest.mark.parametrize("folder", ["/dev", "/dev/shm", "/etc", "/root", "/run", "/tmp", "/var/tmp"])
def test_a_device_file_made_inside_is_no_device(box: Sandbox, folder: str) -> None:
    # Else its root, who may make one of the host's disk, could read and write that.
    opened = box.run(f"mknod {folder}/none c 1 3 && echo lost > {folder}/none")
    assert opened.returncode != 0
    assert "Permission denied" in opened.stderr


def test_the_kernels_settings_are_read_only(box: Sandbox) -> None:
    assert "ro" in mount_options(box, "/proc/sys")
    assert "ro" in mount_options(box, "/sys")


def test_no_descriptor_is_inherited(box: Sandbox) -> None:
    # The fourth is the directory that ls itself reads.
    assert printed(box, ["ls", "/proc/self/fd"]).split() == ["0", "1", "2", "3"]


def test_a_command_has_no_more_capabilities_than_the_default(box: Sandbox) -> None:
    default = mask(DEFAULT_CAPABILITIES)
    status = statuses(box)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) & ~default == 0, name


def test_a_command_is_confined(box: Sandbox) -> None:
    status = statuses(box)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


# Files


@pytest.mark.needs("root")
def test_two_sandboxes_do_not_see_each_others_files(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as one, engine.create(SandboxSpec()) as two:
        for path in ("/tmp/mine", f"{SHOWN}/mine", "/dev/shm/mine"):
            one.run(f"echo mine > {path}", check=True)
            assert two.run(["test", "-e", path]).returncode == 1


@pytest.mark.needs("root")
def test_the_next_sandbox_is_as_fresh_as_the_first(engine: Engine) -> None:
    for _ in range(5):
        with engine.create(SandboxSpec()) as sandbox:
            sandbox.run(f"test ! -e {SHOWN}/mine && echo mine > {SHOWN}/mine", check=True)


@pytest.mark.needs("root")
def test_what_is_removed_inside_stays_on_the_host(box: Sandbox, shown: Path, engine: Engine) -> None:
    (shown / "canary").write_text("alive")
    with engine.create(SandboxSpec()) as sandbox:
        assert printed(sandbox, ["cat", str(shown / "canary")]) == "alive"
        sandbox.run(["rm", "-rf", str(shown)], check=True)
        assert sandbox.run(["test", "-e", str(shown)]).returncode == 1
    assert (shown / "canary").read_text() == "alive"


@pytest.mark.needs("root")
def test_what_is_written_inside_stays_inside(shown: Path, engine: Engine) -> None:
    (shown / "canary").write_text("alive")
    with engine.create(SandboxSpec()) as sandbox:
        sandbox.run(f"echo dead > {shown}/canary; echo new > {shown}/new", check=True)
    assert [(path.name, path.read_text()) for path in shown.iterdir()] == [("canary", "alive")]


@pytest.mark.needs("root")
def test_changes_are_told(shown: Path, engine: Engine) -> None:
    (shown / "modified").write_text("before")
    (shown / "deleted").write_text("before")
    with engine.create(SandboxSpec()) as sandbox:
        assert not sandbox.changes()
        sandbox.run(f"cd {shown} && echo > added && echo > modified && rm deleted && echo > /dev/shm/x", check=True)
        changes = sandbox.changes().below(str(shown))
    assert changes.added == (f"{shown}/added",)
    assert changes.modified == (f"{shown}/modified",)
    assert changes.deleted == (f"{shown}/deleted",)


def test_files_are_read_and_written(box: Sandbox) -> None:
    box.write_text("/tmp/text", "grüß\n")
    assert printed(box, ["cat", "/tmp/text"]) == "grüß\n"
    assert box.read_text("/tmp/text") == "grüß\n"
    box.write_bytes("/tmp/bytes", bytes(range(256)))
    assert box.read_bytes("/tmp/bytes") == bytes(range(256))
    assert box.files.exists("/tmp/bytes")


def test_a_missing_file_is_an_error_with_its_errno(box: Sandbox) -> None:
    with pytest.raises(FileAccessError, match="/no/such/file") as caught:
        box.read_text("/no/such/file")
    assert isinstance(caught.value, OSError)


def test_trees_go_in_and_come_out(box: Sandbox, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/script").write_text("#!/bin/sh\necho ran\n")
    (tree / "deep/script").chmod(0o755)
    (tree / "link").symlink_to("deep/script")
    box.put(tree, "/tmp/tree")
    assert printed(box, ["/tmp/tree/link"]) == "ran\n"
    box.run("echo more > /tmp/tree/more", check=True)
    box.get("/tmp/tree", tmp_path / "back")
    assert (tmp_path / "back/more").read_text() == "more\n"
    assert os.readlink(tmp_path / "back/link") == "deep/script"
    assert os.access(tmp_path / "back/deep/script", os.X_OK)


def test_no_link_leads_out_of_the_sandbox(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    box.run(["ln", "-s", str(tmp_path / "secret"), "/tmp/link"], check=True)
    with pytest.raises(FileAccessError):
        box.read_text("/tmp/link")


def test_a_read_only_sandbox_cannot_be_written_to(engine: Engine) -> None:
    with engine.create(SandboxSpec(read_only=True)) as sandbox:
        assert "Read-only file system" in str(sandbox.run(f"echo x > {SHOWN}/x").stderr)
        sandbox.run("echo x > /tmp/x", check=True)
        assert not sandbox.changes().below(SHOWN)


def test_the_hosts_temporary_files_are_hidden(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with engine.create(SandboxSpec()) as sandbox:
        assert sandbox.run(["test", "-e", str(tmp_path / "secret")]).returncode == 1


CONNECT = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(sys.argv[1])
except OSError:
    print("refused")
else:
    print("connected")
"""


@needs_python
def test_no_unix_socket_of_the_host_can_be_connected_to(engine: Engine, shown: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(shown / "door"))
        server.listen()
        (shown / "door").chmod(0o777)
        with engine.create(SandboxSpec()) as sandbox:
            assert sandbox.run(["test", "-d", str(shown)]).returncode == 0
            assert printed(sandbox, ["python3", "-c", CONNECT, str(shown / "door")]) == "refused\n"


def test_other_homes_are_hidden(box: Sandbox) -> None:
    own = os.path.basename(os.path.expanduser("~"))
    assert set(str(box.run("ls -A /home").stdout).split()) <= {own}


# Terminals


def test_a_terminal_echoes_and_has_its_size(box: Sandbox) -> None:
    with box.pty(["sh"], rows=40, columns=100) as terminal:
        terminal.write(b"stty size; tty\n")
        terminal.read_until(b"40 100", 30)
        terminal.read_until(b"/dev/pts/", 30)
        terminal.resize(50, 120)
        terminal.write(b"stty size\n")
        terminal.read_until(b"50 120", 30)
        terminal.write(b"exit 4\n")
        assert terminal.wait(30) == 4


def test_what_is_typed_is_echoed(box: Sandbox) -> None:
    with box.pty(["cat"]) as terminal:
        terminal.write(b"typed\n")
        assert terminal.read_until(b"typed\r\ntyped\r\n", 30)
        terminal.write(b"\x04")
        assert terminal.wait(30) == 0


def test_ctrl_c_reaches_the_command(box: Sandbox) -> None:
    with box.pty("trap 'echo caught; exit 7' INT; cat") as terminal:
        # Once cat has answered, it is the one that the signal meets, and no half-born fork of the shell.
        terminal.write(b"typed\n")
        terminal.read_until(b"typed\r\ntyped\r\n", 30)
        terminal.write(b"\x03")
        terminal.read_until(b"caught", 30)
        assert terminal.wait(30) == 7


def test_closing_a_terminal_ends_the_command(box: Sandbox) -> None:
    with box.pty(["sleep", "1000"]) as terminal:
        pass
    assert terminal.process.returncode is not None
    terminal.close()


# Ends


def test_a_closed_sandbox_says_so(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as sandbox:
        pass
    sandbox.close()
    assert repr(sandbox).endswith("of the host closed>")
    with pytest.raises(SandboxClosedError, match=f"sandbox {sandbox.name} was closed"):
        sandbox.run(["true"])
    with pytest.raises(SandboxClosedError):
        sandbox.read_text("/etc/passwd")
    with pytest.raises(SandboxClosedError):
        sandbox.changes()
    with pytest.raises(SandboxClosedError):
        sandbox.connect(80)


def test_closing_ends_all_that_runs(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as sandbox:
        process = sandbox.popen(["sleep", "1000"])
    assert process.wait(30) == -signal.SIGKILL
    process.close()


def test_a_sandbox_whose_init_was_killed_says_so(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as sandbox:
        process = sandbox.popen(["sleep", "1000"])
        kill_and_await(sandbox.pid)
        with pytest.raises(SandboxClosedError, match=f"sandbox {sandbox.name} has died: its init was killed"):
            sandbox.run(["true"])
        assert process.wait(30) == -signal.SIGKILL
        process.close()


def test_init_cannot_be_killed_from_inside(box: Sandbox) -> None:
    box.run("kill -9 1; kill -TERM 1")
    assert printed(box, ["echo", "alive"]) == "alive\n"


def test_an_engine_that_is_closed_twice_leaves_no_run(tmp_path: Path) -> None:
    engine = Engine.open(EngineSettings(store=str(tmp_path)))
    engine.close()
    engine.close()
    assert repr(engine).endswith("closed>")
    assert os.listdir(tmp_path / "runs") == []


# Limits


HUNGRY = "import sys; kept = [bytearray(b'x') * (1 << 20) for _ in range(512)]"
FORKS = """
import os, signal
pids = []
try:
    while len(pids) < 200:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
except BlockingIOError:
    print("full", len(pids))
"""


@needs_python
@pytest.mark.needs("cgroup-memory")
def test_running_out_of_memory_is_told_apart_from_other_kills(engine: Engine) -> None:
    with engine.create(SandboxSpec(memory="64M")) as sandbox:
        killed = sandbox.run("kill -9 $$")
        assert (killed.returncode, killed.oom_killed) == (-signal.SIGKILL, False)
        starved = sandbox.run(["python3", "-c", HUNGRY], timeout=30)
        assert (starved.returncode, starved.oom_killed) == (-signal.SIGKILL, True)
        assert "was killed by the kernel, out of memory" in str(starved)
        assert printed(sandbox, ["echo", "alive"]) == "alive\n"


@needs_python
@pytest.mark.needs("cgroup-pids")
def test_there_are_no_more_processes_than_allowed(engine: Engine) -> None:
    with engine.create(SandboxSpec(pids=20)) as sandbox:
        said, number = printed(sandbox, ["python3", "-c", FORKS]).split()
    assert said == "full"
    assert int(number) < 20


# Where no group can be written to: another file system lies over them all.
WITHOUT_GROUPS = """
import os, sys
from pytest_sandbox_runtime import Engine, EngineSettings, SandboxSpec, UnsupportedError
from pytest_sandbox_runtime.capabilities import is_privileged
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.supervisor.identities import map_identities
if not is_privileged():
    map_identities("")
unshare(CloneFlag.NEWNS)
mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)
mount("tmpfs", "/sys/fs/cgroup", "tmpfs")
limits = {"memory": 64 << 20, "cpus": 0.5, "pids": 20}
for name, amount in limits.items():
    for best_effort in (False, True):
        with Engine.open(EngineSettings(store=sys.argv[1], best_effort_limits=best_effort)) as engine:
            try:
                with engine.create(SandboxSpec(**{name: amount})) as sandbox:
                    print(sandbox.run(["echo", name], check=True).stdout, end="")
            except UnsupportedError as error:
                print(f"{error.message} / {error.hint}")
"""


def test_a_limit_that_cannot_be_enforced_is_an_error_unless_best_effort_will_do(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_GROUPS, str(tmp_path / "store")]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    for name, amount, line in zip(("memory", "cpus", "pids"), (64 * MIB, 0.5, 20), lines[::2], strict=True):
        assert line.startswith(f"{name}={amount} cannot be enforced on this host: ")
        assert line.endswith("or set sandbox_limits = best-effort")
    assert lines[1::2] == ["memory", "cpus", "pids"]


def test_stats_count_the_sandboxs_processes(box: Sandbox) -> None:
    with box.popen("echo ready; sleep 1000 & sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        stats = box.stats()
    assert stats.memory is not None
    assert stats.memory > 0


# Other bases


@pytest.mark.needs("static-busybox")
def test_a_directory_is_a_base(engine: Engine, small_root: Path) -> None:
    with engine.create(SandboxSpec(image=Image.archive(small_root))) as sandbox:
        assert printed(sandbox, ["id", "-u"]) == "0\n"
        sandbox.run("echo new > /etc/new; echo changed >> /etc/passwd", check=True)
        changes = sandbox.changes()
    assert "/etc/new" in changes.added
    assert "/etc/passwd" in changes.modified
    assert not (small_root / "etc/new").exists()
    assert (small_root / "etc/passwd").read_text() == "root:x:0:0:root:/root:/bin/sh\n"


def test_what_is_no_base_is_an_error(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="missing.tar"):
        engine.create(SandboxSpec(image=Image.archive(tmp_path / "missing.tar")))
