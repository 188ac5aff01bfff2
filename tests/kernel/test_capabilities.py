"""The probes on this kernel, and on what can be made of it: fewer rights, no namespaces, a filter."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import capabilities
from pytest_sandbox_runtime.capabilities import Capability, names, table

if TYPE_CHECKING:
    from collections.abc import Callable

    Look = Callable[[str], dict[str, Capability]]

PRINT_TABLE = """
import dataclasses, json
from pytest_sandbox_runtime.capabilities import table
print(json.dumps([dataclasses.asdict(row) for row in table()]))
"""
# Without CAP_SYS_ADMIN root has to go through a user namespace, as anybody does.
AS_A_USER = """
from pytest_sandbox_runtime.kernel.capabilities import Capability, capget, capset, drop_bounding
drop_bounding([Capability.SYS_ADMIN])
kept = capget().permitted & ~(1 << Capability.SYS_ADMIN)
capset(kept, kept, 0)
"""
WITHOUT_USER_NAMESPACES = """
from pytest_sandbox_runtime.supervisor.identities import map_identities
map_identities("")
open("/proc/sys/user/max_user_namespaces", "w").write("0")
"""
# Loads the number of the call, and where it is unshare(2)'s answers what is asked for.
WITH_A_FILTER = """
import os
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl
from pytest_sandbox_runtime.kernel.seccomp import INSTRUCTION, install
unshare = {{"x86_64": 272, "aarch64": 97}}[os.uname().machine]
program = [(0x20, 0, 0, 0), (0x15, 0, 1, unshare), (0x06, 0, 0, {answer:#x}), (0x06, 0, 0, 0x7fff0000)]
prctl(Prctl.SET_NO_NEW_PRIVS, 1)
install(b"".join(INSTRUCTION.pack(*one) for one in program))
"""
REFUSE, KILL = 0x00050001, 0x80000000


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Return the table as a process sees it after it has run some code; its store is an empty directory."""

    def look(setup: str) -> dict[str, Capability]:
        said = subprocess.run(
            [sys.executable, "-c", setup + PRINT_TABLE],
            env={**os.environ, "PYTEST_SANDBOX_HOME": str(tmp_path)},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        return {row["name"]: Capability(**row) for row in json.loads(said)}

    return look


def test_every_row_has_a_reason_and_each_missing_one_a_mend() -> None:
    rows = table()
    assert tuple(row.name for row in rows) == names()
    assert all(row.reason for row in rows)
    assert all(row.mend for row in rows if row.required and not row.available)


def test_probing_leaves_nothing_behind(look: Look, tmp_path: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    assert look("")["linux"].available
    assert list(tmp_path.iterdir()) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts


@pytest.mark.needs("root")
def test_root_makes_sandboxes_directly(look: Look) -> None:
    rows = look("")
    assert rows["overlay-on-host"].reason == "a copy-on-write view of /"
    assert rows["overlayfs"].reason.startswith("as root; upper directory ")
    assert not rows["user-namespaces"].required


@pytest.mark.needs("root", "user-namespaces")
def test_root_without_sys_admin_goes_through_a_user_namespace(look: Look) -> None:
    rows = look(AS_A_USER)
    assert not rows["root"].available
    assert rows["user-namespaces"].required
    assert rows["overlayfs"].reason.startswith("in a user namespace, with userxattr")
    assert rows["overlay-on-host"].reason == "a copy-on-write view of /usr"
    assert [row.name for row in rows.values() if row.required and not row.available] == []


@pytest.mark.needs("user-namespaces")
def test_a_limit_of_no_user_namespaces_is_found_and_named(look: Look) -> None:
    row = look(WITHOUT_USER_NAMESPACES)["user-namespaces"]
    assert not row.available
    assert "ENOSPC" in row.reason
    assert "sudo sysctl -w user.max_user_namespaces=15000" in row.mend


@pytest.mark.needs("user-namespaces")
def test_what_was_not_tried_points_to_what_kept_it_from_being_tried(look: Look) -> None:
    rows = look(WITHOUT_USER_NAMESPACES)
    assert rows["overlayfs"].reason == "not tried without user-namespaces"
    assert rows["overlayfs"].mend == "see to user-namespaces first"
    assert rows["seccomp"].available


@pytest.mark.needs("seccomp")
def test_a_filter_that_refuses_unshare_is_found_and_named(look: Look) -> None:
    rows = look(WITH_A_FILTER.format(answer=REFUSE))
    assert not rows["namespaces"].available
    assert "EPERM" in rows["user-namespaces"].reason
    mends = " ".join(row.mend for row in rows.values())
    assert "a seccomp filter is on this process" in mends or "inside " in mends


@pytest.mark.needs("seccomp")
def test_a_filter_that_kills_kills_the_probe_only(look: Look) -> None:
    rows = look(WITH_A_FILTER.format(answer=KILL))
    assert f"killed by signal {signal.SIGSYS.value}" in rows["user-namespaces"].reason
    assert rows["seccomp"].available


def test_probes_that_cannot_be_started_are_told_and_not_raised(look: Look) -> None:
    rows = look("import sys; sys.executable = '/no/python'")
    assert rows["proc"].reason == "not tried, as /no/python: ENOENT, No such file or directory"
    assert rows["proc"].mend


HANGING = """
import os, signal, sys
os.write(1, b"first\\t\\t0\\t\\n")
signal.signal(signal.SIGALRM, lambda *_: os.write(1, b"late\\t\\t0\\t\\n"))
held = os.open(sys.argv[1], os.O_WRONLY)
os.fork()
signal.alarm(20)
signal.pause()
"""


def test_a_probe_that_hangs_is_cut_off_with_all_that_it_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert capabilities._ask([sys.executable, "-c", HANGING, str(fifo)], 1) == "first\t\t0\t\n"
    poll = select.poll()
    poll.register(reader, 0)
    # Hung up when the last process that has it open for writing is gone.
    assert poll.poll(10_000) == [(reader, select.POLLHUP)]
    os.close(reader)


def test_the_limits_that_are_not_enforced_are_those_of_the_table() -> None:
    refused = capabilities.limits_not_enforced()
    rows = {"memory": "cgroup-memory", "cpus": "cgroup-cpu", "pids": "cgroup-pids"}
    assert set(refused) == {limit for limit, name in rows.items() if not capabilities.probe(name).available}
    assert all(refused.values())
