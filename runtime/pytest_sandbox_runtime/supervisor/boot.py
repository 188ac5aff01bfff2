"""PYTEST_DONT_REWRITE. How a fork of the supervisor becomes the init of a sandbox, step after step.

Until it is one it says nothing; its last words, if a step fails, name step, call, errno and subject.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
import time

from pytest_sandbox_runtime.kernel.capabilities import capget, capset, drop_bounding, mask
from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.light import signal, socket
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, sethostname, setns, unshare
from pytest_sandbox_runtime.kernel.processes import close_all_but
from pytest_sandbox_runtime.kernel.pseudo_files import write
from pytest_sandbox_runtime.network.namespaces import raise_loopback
from pytest_sandbox_runtime.network.watch import open_resolver, tell_of
from pytest_sandbox_runtime.rootfs.steps import carry_out, describe
from pytest_sandbox_runtime.supervisor.confinement import confine
from pytest_sandbox_runtime.supervisor.identities import map_one
from pytest_sandbox_runtime.supervisor.init import serve
from pytest_sandbox_runtime.supervisor.messages import send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_sandbox_runtime.network.namespaces import Namespace
    from pytest_sandbox_runtime.supervisor.directories import Directory


def become_init(
    control: socket.socket,
    watch: socket.socket,
    directory: Directory,
    job: dict[str, Any],
    group: Any,
    network: Namespace | None,
    name: str,
) -> None:
    """Build the sandbox ``name`` that ``job`` describes around this process and serve it; never returns.

    ``network`` is the network namespace to be in, if not the host's, and ``watch`` where it is said how it is heard.
    """
    status = 1
    doing: list[Any] = ["begin"]
    try:
        namespaces = job["namespaces"]
        if network is not None:
            setns(network.descriptor, CloneFlag.NEWNET)
            namespaces &= ~CloneFlag.NEWNET
        resolver = network.sockets if network is not None else ()
        # Nothing of the supervisor's may live on in here: its sockets, its lock, other sandboxes' descriptors.
        close_all_but(control.fileno(), watch.fileno(), *resolver)
        _leave_host(namespaces, group, doing)
        if namespaces & CloneFlag.NEWNET:
            doing[0] = "bring the loopback device up"
            raise_loopback()
            resolver = open_resolver()
        _build(job, directory, doing)
        listener = _drop_privileges(job, doing)
        doing[0] = "be ready"
        if resolver:
            tell_of(watch, name, listener, *resolver)
        watch.close()
        _say_ready(control)
        status = serve(control)
    except OSError as error:
        step = doing[0] if isinstance(doing[0], str) else describe(doing[0])
        call = error.call if isinstance(error, SyscallError) else ""
        send(control, ("failed", step, call, error.errno or 0, str(error.filename or "")))
    except BaseException:
        # Goes to the run's supervisor.log; the client sees the socket end, and quotes it.
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(status)


def _leave_host(namespaces: int, group: Any, doing: list[Any]) -> None:
    """``doing`` holds the step that is being done, for who is told of its failure; so in what follows."""
    os.umask(0)
    if group is not None:
        doing[0] = "join the control group"
        group.join(0)
    doing[0] = "leave the host's namespaces"
    unshare(namespaces)
    if namespaces & CloneFlag.NEWTIME:
        # Clocks that count from the start of the sandbox, as those of a machine do from its boot.
        clocks = (("monotonic", time.CLOCK_MONOTONIC), ("boottime", time.CLOCK_BOOTTIME))
        offsets = "".join(f"{name} -{int(time.clock_gettime(clock))} 0\n" for name, clock in clocks)
        write("/proc/self/timens_offsets", offsets)


def _build(job: dict[str, Any], directory: Directory, doing: list[Any]) -> None:
    """Do what ``job`` says."""
    doing[0] = "set the host name"
    sethostname(job["hostname"])
    doing[0] = "go to the sandbox's directory"
    os.chdir(directory.path)
    # In a sandbox that nests, the proc that is mounted now may be read-only.
    own = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    doing[0] = "make mounts private"
    mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)
    for step in job["plan"] if directory.is_mounted else job["stack"] + job["plan"]:
        doing[0] = step
        carry_out(step)
    if _is_as_made(job):
        _leave_groups()
    else:
        # Last, as proc(5) may be mounted only by the owner of the pid namespace, which is the run's user namespace.
        doing[0] = "take the user's identity"
        unshare(CloneFlag.NEWUSER)
        map_one(job["identity"], (0, 0), own)
    os.close(own)
    for limit, soft, hard in job["ulimits"]:
        doing[0] = "set the limits of processes"
        _limit(limit, soft, hard)


def _drop_privileges(job: dict[str, Any], doing: list[Any]) -> int:
    """Return where it is heard what this process, and all that it starts, connects to; -1 for nowhere."""
    doing[0] = "drop privileges"
    drop_bounding(job["cap_drop"])
    added = mask(job["cap_add"])
    if added:
        doing[0] = "add capabilities"
        # Before the bounding set is cut, where it is yet to be: what is not in it can only be inherited, and stays so.
        has = capget()
        capset(has.effective, has.permitted, added)
        doing[0] = "drop privileges"
    return confine(
        job["seccomp"],
        keep_permitted=True,
        bounding_is_cut=_is_as_made(job),
        inheritable=added,
        telling=job["telling"],
    )


def _is_as_made(job: dict[str, Any]) -> bool:
    """Whether it stays in the supervisor's user namespace; one of its own begins with a full bounding set."""
    return bool(job["identity"] == (0, 0))


def _limit(limit: int, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(limit, (soft, hard))
    except ValueError as error:
        raise OSError(errno.EPERM, "", str(limit)) from error


def _leave_groups() -> None:
    """Be in none of the caller's supplementary groups, which root of an image is in nowhere else."""
    try:  # noqa: SIM105  contextlib is not needed here otherwise
        os.setgroups([])
    except PermissionError:
        pass  # with one mapped id they stay: user_namespaces(7)


def _say_ready(control: socket.socket) -> None:
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    send(control, ("ready",), (root,))
    os.close(root)
