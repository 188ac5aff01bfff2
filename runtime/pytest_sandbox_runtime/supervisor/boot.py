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
from pytest_sandbox_runtime.kernel.processes import close_range
from pytest_sandbox_runtime.network.namespaces import raise_loopback
from pytest_sandbox_runtime.rootfs.steps import carry_out, describe
from pytest_sandbox_runtime.supervisor.confinement import confine
from pytest_sandbox_runtime.supervisor.init import serve
from pytest_sandbox_runtime.supervisor.messages import send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_sandbox_runtime.supervisor.directories import Directory

CONTROL_FD = 3


def become_init(control: socket.socket, directory: Directory, job: dict[str, Any], group: Any, network: int) -> None:
    """Build the sandbox that ``job`` describes around this process and serve it; never returns.

    ``network`` is the descriptor of a network namespace to be in, or -1.
    """
    status = 1
    doing: list[Any] = ["begin"]
    try:
        namespaces = job["namespaces"]
        if network != -1:
            setns(network, CloneFlag.NEWNET)
            namespaces &= ~CloneFlag.NEWNET
        control = _keep_only(control)
        _boot(job, namespaces, directory, group, doing)
        doing[0] = "be ready"
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


def _keep_only(control: socket.socket) -> socket.socket:
    # Nothing of the supervisor's may live on in here: its sockets, its lock, other sandboxes' descriptors.
    if control.fileno() != CONTROL_FD:
        os.dup2(control.fileno(), CONTROL_FD, inheritable=False)
    close_range(CONTROL_FD + 1)
    control.detach()
    return socket.socket(fileno=CONTROL_FD)


def _boot(job: dict[str, Any], namespaces: int, directory: Directory, group: Any, doing: list[Any]) -> None:
    """Do what ``job`` says; ``doing`` holds the step that is being done, for who is told of its failure."""
    os.umask(0)
    if group is not None:
        doing[0] = "join the control group"
        group.join(0)
    doing[0] = "leave the host's namespaces"
    _leave(namespaces)
    if namespaces & CloneFlag.NEWNET:
        doing[0] = "bring the loopback device up"
        raise_loopback()
    doing[0] = "set the host name"
    sethostname(job["hostname"])
    doing[0] = "go to the sandbox's directory"
    os.chdir(directory.path)
    doing[0] = "make mounts private"
    mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)
    for step in job["plan"] if directory.is_mounted else job["stack"] + job["plan"]:
        doing[0] = step
        carry_out(step)
    # A user namespace begins with every capability in its bounding set; else that is the supervisor's, cut already.
    is_as_made = job["identity"] == (0, 0)
    if is_as_made:
        _leave_groups()
    else:
        # Last, as proc(5) may be mounted only by the owner of the pid namespace, which is the run's user namespace.
        doing[0] = "take the user's identity"
        _identify(*job["identity"])
    for limit, soft, hard in job["ulimits"]:
        doing[0] = "set the limits of processes"
        _limit(limit, soft, hard)
    doing[0] = "drop privileges"
    drop_bounding(job["cap_drop"])
    added = mask(job["cap_add"])
    if added:
        doing[0] = "add capabilities"
        # Before the bounding set is cut, where it is yet to be: what is not in it can only be inherited, and stays so.
        has = capget()
        capset(has.effective, has.permitted, added)
        doing[0] = "drop privileges"
    confine(job["seccomp"], keep_permitted=True, bounding_is_cut=is_as_made, inheritable=added)


def _limit(limit: int, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(limit, (soft, hard))
    except ValueError as error:
        raise OSError(errno.EPERM, "", str(limit)) from error


def _leave(namespaces: int) -> None:
    unshare(namespaces)
    if namespaces & CloneFlag.NEWTIME:
        # Clocks that count from the start of the sandbox, as those of a machine do from its boot.
        clocks = (("monotonic", time.CLOCK_MONOTONIC), ("boottime", time.CLOCK_BOOTTIME))
        offsets = "".join(f"{name} -{int(time.clock_gettime(clock))} 0\n" for name, clock in clocks)
        _write("/proc/self/timens_offsets", offsets.encode())


def _leave_groups() -> None:
    """Be in none of the caller's supplementary groups, which root of an image is in nowhere else."""
    try:  # noqa: SIM105  contextlib is not needed here otherwise
        os.setgroups([])
    except PermissionError:
        pass  # with one mapped id they stay: user_namespaces(7)


def _identify(uid: int, gid: int) -> None:
    unshare(CloneFlag.NEWUSER)
    _write("/proc/self/setgroups", b"deny")
    _write("/proc/self/uid_map", b"%d 0 1" % uid)
    _write("/proc/self/gid_map", b"%d 0 1" % gid)


def _write(path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


def _say_ready(control: socket.socket) -> None:
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    send(control, ("ready",), (root,))
    os.close(root)
