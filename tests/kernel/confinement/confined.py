"""Processes that are confined: each is a fork of the test's own, as nothing of this is undone."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.kernel.capabilities import mask
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl
from pytest_sandbox_runtime.supervisor.confinement import DEFAULT_CAPABILITIES, confine, seccomp_program

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT = mask(DEFAULT_CAPABILITIES)
NOBODY = 65534


def in_child(act: Callable[[], str]) -> str:
    """Return what ``act`` returned in a fork of this process, or the words of the error or signal that ended it."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 on, with threads: the child starts none of its own
        pid = os.fork()
    if pid == 0:
        answer_and_exit(act, writer)
    os.close(writer)
    with os.fdopen(reader) as answers:
        said = answers.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return said or signal.Signals(-status).name


def answer_and_exit(act: Callable[[], str], writer: int) -> None:
    try:
        said = act()
    except BaseException:
        said = traceback.format_exc()
    os.write(writer, said.encode())
    os._exit(0)


def confined(act: Callable[[], str], enter: Callable[[], None], *, keep_permitted: bool = True) -> str:
    """Return what ``act`` says once confined. Capabilities are kept, so that a refusal is the filter's."""

    def all_of_it() -> str:
        enter()
        confine(seccomp_program(), keep_permitted=keep_permitted)
        return act()

    return in_child(all_of_it)


def stay_root() -> None:
    """Confine root as it is."""


def become_user_with_namespace(mapped: int = 0) -> None:
    """Become an ordinary user, and ``mapped`` in a user namespace of that user's."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl(Prctl.SET_DUMPABLE, 1)  # else /proc/self belongs to root
    uid, gid = os.geteuid(), os.getegid()
    unshare(CloneFlag.NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{mapped} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{mapped} {gid} 1")


def status_of(pid: int | str = "self") -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def capability_lines() -> str:
    status = status_of()
    return " ".join(f"{name}={int(status['Cap' + name], 16):x}" for name in ("Prm", "Eff", "Bnd", "Inh", "Amb"))
