"""What a sandbox shows and lets do: environment, identity, network, devices."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.capabilities import is_privileged
from pytest_sandbox_runtime.command import PATH
from pytest_sandbox_runtime.engine import Engine
from pytest_sandbox_runtime.kernel.capabilities import mask
from pytest_sandbox_runtime.sandbox import Sandbox
from pytest_sandbox_runtime.specs import SandboxSpec
from pytest_sandbox_runtime.supervisor.confinement import DEFAULT_CAPABILITIES

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.needs("overlay-on-host")
needs_python = pytest.mark.needs("python3")


def printed(box: Sandbox, command: str | list[str]) -> str:
    return str(box.run(command, check=True).stdout)


def statuses(box: Sandbox) -> dict[str, str]:
    lines = printed(box, ["cat", "/proc/self/status"]).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def mount_options(box: Sandbox, target: str) -> list[str]:
    mounts = [line.split() for line in printed(box, ["cat", "/proc/self/mounts"]).splitlines()]
    return [fields[3] for fields in mounts if fields[1] == target][-1].split(",")


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
