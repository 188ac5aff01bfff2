"""Confining once, twice, with one that tells, and without a filter."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.kernel.capabilities import capget
from pytest_sandbox_runtime.kernel.seccomp import let_go_on, next_notification
from pytest_sandbox_runtime.supervisor.confinement import confine, seccomp_program
from tests.kernel.confinement.confined import DEFAULT, capability_lines, confined, in_child, status_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs("seccomp", "syscall-numbers")


def test_no_program_gains_privileges_and_the_filter_is_on(enter: Callable[[], None]) -> None:
    said = confined(lambda: f"{status_of()['NoNewPrivs']} {status_of()['Seccomp']}", enter)
    assert said == "1 2"


def test_confining_twice_is_no_error(enter: Callable[[], None]) -> None:
    def again() -> str:
        confine(seccomp_program(), keep_permitted=False)
        return capability_lines()

    assert " Inh=0 Amb=0" in confined(again, enter, keep_permitted=False)


def test_one_that_tells_is_heard_by_one_only(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        plain, telling = seccomp_program(), seccomp_program(tells=True)
        listener = confine(plain, keep_permitted=True, telling=telling)
        again = confine(plain, keep_permitted=True, telling=telling)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        pid = os.fork()
        if pid == 0:
            os._exit(socket.socket().connect_ex(("127.0.0.1", 1)))
        poll.poll()
        call = next_notification(listener)
        let_go_on(listener, call)
        ended, status = os.waitpid(pid, 0)
        said = errno.errorcode[os.waitstatus_to_exitcode(status)]
        return f"{listener >= 0} {again} {call.pid == ended} {call.arguments[2]} {said}"

    assert in_child(attempt) == "True -1 True 16 ECONNREFUSED"


def test_without_a_program_there_is_no_filter_and_the_capabilities_are_cut(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        confine(None, keep_permitted=False)
        return f"{status_of()['Seccomp']} {capget().permitted & ~DEFAULT}"

    before = status_of()["Seccomp"]
    assert in_child(attempt) == f"{before} 0"


def test_the_policy_is_imported_without_what_would_slow_the_supervisor() -> None:
    script = "import sys, pytest_sandbox_runtime.supervisor.confinement; print(*sys.modules)"
    runtime = str(Path(__file__).parents[3] / "runtime")
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {runtime!r}); {script}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"typing", "dataclasses", "re", "json", "subprocess", "pytest_sandbox_runtime.errors"} & set(loaded)
