"""Sandboxes made in a sandbox, by an engine that runs in it, and what nobody gets by being let make them."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pytest_sandbox_runtime
from pytest_sandbox_runtime import Engine, EngineSettings, SandboxSpec
from pytest_sandbox_runtime.capabilities import is_privileged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime import Outcome, Sandbox

pytestmark = pytest.mark.needs("overlay-on-host", "user-namespaces")

RUNTIME = Path(pytest_sandbox_runtime.__file__).parents[1]
NEEDED = tuple(path for path in (str(RUNTIME), sys.prefix, sys.base_prefix, *sys.path) if os.path.isdir(path))
BEGIN = f"""
from pytest_sandbox_runtime import Engine, EngineSettings, SandboxSpec, ready
settings = EngineSettings(needed={NEEDED!r})
"""
# As nobody but the owner of a user namespace with all of its own: unshare(1).
ENTER = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--net", "--fork")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One whose sandboxes can import the runtime."""
    with Engine.open(EngineSettings(store=str(tmp_path_factory.mktemp("store")), needed=NEEDED)) as engine:
        yield engine


@pytest.fixture
def nest(engine: Engine) -> Iterator[Sandbox]:
    with engine.create(SandboxSpec(nesting=True)) as sandbox:
        yield sandbox


def python(box: Sandbox, program: str) -> Outcome:
    """Run ``program`` in ``box``, with a store there."""
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTEST_SANDBOX_HOME": "/tmp/store"}
    return box.run([sys.executable, "-c", BEGIN + textwrap.dedent(program)], env=env, timeout=60)


def printed(box: Sandbox, program: str) -> list[str]:
    outcome = python(box, program)
    assert outcome.returncode == 0, outcome.stderr
    return str(outcome.stdout).splitlines()


def entered(box: Sandbox, script: str) -> str:
    outcome = box.run([*ENTER, "sh", "-c", script])
    return (str(outcome.stdout) + str(outcome.stderr)).strip()


def test_a_sandbox_in_a_sandbox_is_a_machine_of_its_own_and_leaves_nothing(nest: Sandbox) -> None:
    said = printed(
        nest,
        """
        import os
        with Engine.open(settings) as engine, engine.create(SandboxSpec(hostname="inner")) as inner:
            inner.write_text("/tmp/note", "kept\\n")
            print(inner.run("uname -n; cat /tmp/note; set -- /proc/[0-9]*; echo $#; ls /sys/class/net").stdout)
            print(os.path.exists("/tmp/note"), os.uname().nodename)
        print(os.listdir("/tmp/store/runs"))
        """,
    )
    assert said == ["inner", "kept", "2", "lo", "", "False sandbox", "[]"]
    # Its init, and the shell that counts.
    assert nest.run("set -- /proc/[0-9]*; echo $#").stdout == "2\n"


def test_a_file_of_the_host_survives_a_nested_rm(engine: Engine, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    canary = shown / "canary"
    canary.write_text("alive")
    settings = EngineSettings(store=str(tmp_path / "store"), needed=(*NEEDED, str(shown)))
    with Engine.open(settings) as outer, outer.create(SandboxSpec(nesting=True)) as nest:
        said = printed(
            nest,
            f"""
            import os
            settings = EngineSettings(needed=(*settings.needed, {str(shown)!r}))
            with Engine.open(settings) as engine, engine.create(SandboxSpec()) as inner:
                print(inner.run("cat {canary}; rm -rf {shown}/*; ls {shown} | wc -l").stdout)
            print(os.listdir({str(shown)!r}))
            """,
        )
        assert said == ["alive0", "", "['canary']"]
        nest.run(["rm", str(canary)], check=True)
    assert canary.read_text() == "alive"


@pytest.mark.needs("networks", "python3")
def test_two_of_them_on_a_network_find_each_other_by_name(nest: Sandbox, engine: Engine) -> None:
    said = printed(
        nest,
        """
        ask = "import socket; print(socket.create_connection(('db', 80)).recv(9).decode())"
        answer = "import socket; one = socket.create_server(('', 80)); one.accept()[0].send(b'found')"
        with Engine.open(settings) as engine, engine.network() as network:
            with engine.create(SandboxSpec(hostname="db"), [network]) as db, engine.create(SandboxSpec(), [network]) as box:
                with db.popen(["python3", "-c", answer]) as server:
                    db.wait_for(ready.port(80))
                    print(box.run(["python3", "-c", ask]).stdout)
                    server.wait()
        """,
    )
    assert said[:1] == ["found"]
    assert engine.violations() == []


@pytest.mark.needs("python3")
def test_what_the_outer_network_refuses_is_still_told(nest: Sandbox, engine: Engine) -> None:
    nest.run(["python3", "-c", "import socket; socket.create_connection(('203.0.113.7', 443))"])
    assert [(one.sandbox, one.name, one.port) for one in engine.violations()] == [(nest.name, "203.0.113.7", 443)]


def test_without_the_word_none_can_be_made_and_the_error_names_it(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as box:
        said = str(python(box, "Engine.open(settings)").stderr)
    assert "Operation not permitted (unshare CLONE_NEWUSER)" in said
    assert "hint: this is inside a sandbox: give that sandbox nesting=True" in said


def test_doctor_says_that_it_can_be_done(nest: Sandbox) -> None:
    said = printed(
        nest,
        """
        from pytest_sandbox_runtime.capabilities import is_privileged, missing, probe
        print([row.name for row in missing()], is_privileged(), probe("container").reason)
        print(probe("namespaces").reason, probe("cgroup-memory").mend, sep="; ")
        """,
    )
    assert said == [
        "[] False inside a sandbox",
        "NS, UTS, IPC, NET, PID; give the limit to the sandbox that this is in",
    ]


def test_newuidmap_which_has_no_rights_there_is_not_asked(nest: Sandbox) -> None:
    nest.run("mkdir /tmp/bin && ln -s /bin/true /tmp/bin/newuidmap && ln -s /bin/true /tmp/bin/newgidmap", check=True)
    nest.run("echo $(id -un):100000:65536 | tee /etc/subuid > /etc/subgid", check=True)
    said = printed(
        nest,
        """
        import os
        from pytest_sandbox_runtime.state import subordinate_ids
        os.environ["PATH"] = "/tmp/bin"
        print([subordinate_ids()])
        """,
    )
    assert said == ["['']"]


def test_a_third_is_refused_with_the_reason(nest: Sandbox) -> None:
    said = printed(
        nest,
        """
        import os, sys
        with Engine.open(settings) as engine, engine.create(SandboxSpec(nesting=True)) as inner:
            program = "from pytest_sandbox_runtime import *\\nwith Engine.open() as one: one.create(SandboxSpec())"
            env = {"PYTHONPATH": os.environ["PYTHONPATH"], "PYTEST_SANDBOX_HOME": "/tmp/store"}
            print(inner.run([sys.executable, "-c", program], env=env).stderr)
        """,
    )
    assert any("overlayfs stacks two deep" in line for line in said)


def test_a_limit_is_an_error_there(nest: Sandbox) -> None:
    said = str(python(nest, "Engine.open(settings).create(SandboxSpec(memory='64M'))").stderr)
    assert "memory=67108864 cannot be enforced on this host" in said


@pytest.mark.needs("root", "python3")
def test_another_user_of_the_sandbox_can_make_one_too(nest: Sandbox) -> None:
    # Where that user can read it.
    nest.run(["cp", "-r", str(RUNTIME), "/srv/runtime"], check=True)
    program = (
        "from pytest_sandbox_runtime import Engine, SandboxSpec\n"
        "with Engine.open() as engine, engine.create(SandboxSpec()) as inner: print(inner.run('id -u').stdout)"
    )
    env = {"PYTHONPATH": "/srv/runtime", "PYTEST_SANDBOX_HOME": "/tmp/store"}
    assert nest.run(["python3", "-c", program], env=env, user="nobody", check=True).stdout == "65534\n\n"


# What stays refused


def test_without_a_user_namespace_nothing_can_be_mounted_or_left(nest: Sandbox) -> None:
    for command in (["mount", "-t", "tmpfs", "none", "/mnt"], ["unshare", "--mount", "true"], ["umount", "/dev/shm"]):
        assert nest.run(command).returncode != 0


def test_control_groups_cannot_be_mounted(nest: Sandbox) -> None:
    assert "Operation not permitted" in str(nest.run([*ENTER, "--cgroup", "true"]).stderr)
    for kind in ("cgroup", "cgroup2"):
        assert "permission denied" in entered(nest, f"mount -t {kind} none /mnt")


def test_the_clean_proc_and_sysfs_stay_out_of_reach(nest: Sandbox) -> None:
    assert nest.run(["ls", "/dev/shm"]).stdout == ""
    assert entered(nest, "umount /dev/shm; ls /dev/shm").count("\n") == 0
    assert entered(nest, "mount --bind /dev /mnt && ls /mnt/shm/proc") != ""


def test_a_proc_of_ones_own_gives_no_rights_over_the_machine(nest: Sandbox) -> None:
    before = Path("/proc/sys/kernel/printk").read_text(encoding="ascii")
    writes = "echo 1 > /mnt/sys/kernel/printk"
    is_mounted = entered(nest, f"mount -t proc none /mnt && echo mounted; {writes}").startswith("mounted")
    # Root's, which the file is writable to, is granted read-only, and stays so.
    assert is_mounted is not is_privileged()
    said = entered(nest, f"mount -t proc -o ro none /mnt && mount -o remount,rw,bind /mnt; {writes} && echo written")
    assert "Read-only file system" in said or not is_privileged()
    assert "written" not in said
    assert Path("/proc/sys/kernel/printk").read_text(encoding="ascii") == before


@pytest.mark.parametrize("network", ["none", "host"])
def test_sysfs_is_read_only_whatever_is_mounted(engine: Engine, network: str) -> None:
    with engine.create(SandboxSpec(nesting=True, network=network)) as nest:
        assert "permission denied" in entered(nest, "mount -t sysfs none /mnt") or network == "host"
        assert entered(nest, "mount -t sysfs -o ro none /mnt && ls -d /mnt/kernel") == "/mnt/kernel"
