"""PYTEST_DONT_REWRITE. A fork of this very process, with all that it has in memory, inside a sandbox."""

from __future__ import annotations

import functools
import os
import resource
import signal
import socket
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from pytest_sandbox_runtime.capabilities import forget, is_privileged
from pytest_sandbox_runtime.cgroups import Group
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, setns
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl
from pytest_sandbox_runtime.network.watch import tell_of
from pytest_sandbox_runtime.supervisor.confinement import confine, cut_bounding_set, seccomp_program
from pytest_sandbox_runtime.supervisor.init import become

if TYPE_CHECKING:
    from collections.abc import Callable

_DUMPABLE = 1


class WayIn(NamedTuple):
    """What a process has to do, besides having the pidfd of its init, to go on in a sandbox: values for marshal.

    ``sandbox`` is its name where it is to be heard what connections the process begins.
    """

    sandbox: str | None
    namespaces: int
    cgroup_paths: Any
    env: tuple[tuple[str, str], ...]
    account: tuple[int, int, tuple[int, ...]] | None
    nesting: bool

    @property
    def is_privileged(self) -> bool:
        """Whether its namespaces belong to this process's own user namespace, so that they can be joined one by one."""
        return not self.namespaces & CloneFlag.NEWUSER


def prepare() -> None:
    """Do once, in a process that only forks, what every one of its forks would do to enter a sandbox."""
    _programs(nests=False)
    if is_privileged():
        cut_bounding_set()


@functools.cache
def _programs(*, nests: bool) -> tuple[bytes, bytes]:
    """Return the filter, and the one that tells."""
    return seccomp_program(nests=nests), seccomp_program(nests=nests, tells=True)


def fork_into(way: WayIn, pidfd: int, watch: int, directory: str, fail: Callable[[str], None]) -> int:
    """Fork, and let the child go on inside a sandbox, in ``directory``: returns 0 there, and a pid here.

    ``watch`` is a descriptor of Connection.watch, which the child closes. To be called after ``prepare``. The process
    with that pid ends as the one inside does. What keeps the child from entering is told ``fail``, in the child, as a
    sentence.
    """
    _programs(nests=way.nesting)  # here, for all forks to come
    with warnings.catch_warnings():
        # Other threads do not live on in a fork; pytest-xdist's are idle while a test runs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = _fork_into_pid_namespace(pidfd) if way.is_privileged else os.fork()
        if pid == 0:
            try:
                if way.cgroup_paths:
                    Group(way.cgroup_paths).join()
                setns(pidfd, way.namespaces)
                # Without root only a process that has joined the user namespace may join the pid namespace, which
                # concerns its next child: this one stays outside, as that child's guard.
                inside = 0 if way.is_privileged else os.fork()
                if inside == 0:
                    _settle(way, watch, directory)
            except BaseException as error:
                fail(f"the test could not enter its sandbox: {error}")
                os._exit(1)
            if inside != 0:
                _end_as(inside)
    return pid


def _fork_into_pid_namespace(pidfd: int) -> int:
    own = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(pidfd, CloneFlag.NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:
                setns(own, CloneFlag.NEWPID)
    finally:
        os.close(own)
    return pid


def _settle(way: WayIn, watch: int, directory: str) -> None:
    os.chdir(directory)
    for name, value in way.env:
        os.environ[name] = value
    if way.account is not None:
        become(*way.account)
    # What the process that this one is a fork of has found out is so outside.
    forget()
    program, telling = _programs(nests=way.nesting)
    # A user namespace begins with every capability in its bounding set; else that was cut by ``prepare``.
    listener = confine(
        program,
        keep_permitted=False,
        bounding_is_cut=way.is_privileged,
        telling=None if way.sandbox is None else telling,
    )
    with socket.socket(fileno=watch) as channel:
        if listener != -1 and way.sandbox is not None:
            # Else only who has rights outside could see what it connects to: ptrace(2).
            prctl(Prctl.SET_DUMPABLE, _DUMPABLE)
            tell_of(channel, way.sandbox, listener)


def _end_as(pid: int) -> NoReturn:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        # One dump of the memory is enough.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(max(status, 0))
