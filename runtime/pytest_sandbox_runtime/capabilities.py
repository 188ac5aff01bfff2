"""What this host can do, what it cannot and why not, and what to do about it: one table, each row probed once.

Importing this probes nothing. ``doctor`` prints the table, and the tests' skips come from it.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime import hints
from pytest_sandbox_runtime.cgroups import find
from pytest_sandbox_runtime.hints import Host, explain, kernel_version
from pytest_sandbox_runtime.images.home import default_store
from pytest_sandbox_runtime.state import can_be_upper, subordinate_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Capability", "explain", "is_privileged", "limits_not_enforced", "missing", "names", "probe", "table"]

_PROBES = os.path.join(os.path.dirname(__file__), "probes.py")
# Seconds for all probes together, which take some 50 ms: what has not answered by then hangs.
_PATIENCE = 5.0
_PREFIX = ".pytest-sandbox-"
_TUN = "/dev/net/tun"
_UNKNOWN = "ask whoever runs this machine what forbids it (the kernel log may say: sudo dmesg), or run as root"
_LIMITS = {"memory": "cgroup-memory", "cpus": "cgroup-cpu", "pids": "cgroup-pids"}


@dataclass(frozen=True)
class Capability:
    """A row of the table. ``mend`` is "" where nothing needs to be done, though it is not ``available``."""

    name: str
    available: bool
    reason: str
    mend: str = ""
    required: bool = False


@dataclass(frozen=True)
class _Answer:
    """What the kernel said to one probe."""

    call: str
    code: int
    detail: str

    def __str__(self) -> str:
        said = f"{errno.errorcode.get(self.code, self.code)}, {os.strerror(self.code)}"
        call = f"{self.call}({self.detail})" if self.call else self.detail or "writing the id map"
        return f"{call}: {said}"


def names() -> tuple[str, ...]:
    """Return the names of all rows, in their order."""
    return tuple(_ROWS)


def table() -> tuple[Capability, ...]:
    """Return all rows, in a fixed order."""
    return tuple(map(probe, _ROWS))


def missing() -> tuple[Capability, ...]:
    """Return the rows without which no sandbox can be made here."""
    return tuple(row for row in table() if row.required and not row.available)


@functools.cache
def probe(name: str) -> Capability:
    """Return the row ``name``, probed when first asked for; KeyError where the table has none of that name."""
    if name in _ROWS and name != "linux" and sys.platform != "linux":
        return Capability(name, available=False, reason="not tried, as this is no Linux")
    return _ROWS[name](name)


def forget() -> None:
    """Probe anew what is asked for from now on: this process has come to another machine."""
    probe.cache_clear()
    _answers.cache_clear()


def is_privileged() -> bool:
    """Whether namespaces and mounts can be made directly; else sandboxes are made in a user namespace."""
    return Host().is_privileged()


def limits_not_enforced() -> dict[str, str]:
    """Return why, for each of memory, cpus and pids that cannot be limited here."""
    rows = {limit: probe(name) for limit, name in _LIMITS.items()}
    return {limit: row.reason for limit, row in rows.items() if not row.available}


# The rows that are read, not tried


def _linux(name: str) -> Capability:
    is_linux = sys.platform == "linux"
    mend = "" if is_linux else "run the suite in a Linux virtual machine, or in WSL2"
    return Capability(name, is_linux, sys.platform, mend, required=True)


def _kernel(name: str) -> Capability:
    release = os.uname().release
    needed, how = ((5, 10), "as root") if is_privileged() else ((5, 11), "without root")
    reason = f"{release}; {'.'.join(map(str, needed))} or newer is needed {how}"
    is_new = kernel_version(release) >= needed
    mend = "" if is_new else "boot a newer kernel (in WSL1: wsl --set-version DISTRIBUTION 2)"
    return Capability(name, is_new, reason, mend, required=True)


def _root(name: str) -> Capability:
    if is_privileged():
        return Capability(name, available=True, reason="namespaces and mounts are made directly")
    return Capability(name, available=False, reason="not root here: sandboxes are made in a user namespace")


def _apparmor(name: str) -> Capability:
    value = Host().sysctl(hints.APPARMOR)
    if value != "1":
        return Capability(name, available=True, reason=f"{hints.APPARMOR} is {value or 'not there'}")
    if is_privileged() or probe("user-namespaces").available:
        return Capability(name, available=True, reason=f"{hints.APPARMOR}=1, but this process may")
    mend = hints.apparmor_refuses(Host())
    return Capability(name, available=False, reason=f"{hints.APPARMOR}=1", mend=mend)


def _container(name: str) -> Capability:
    kind = Host().container()
    if not kind:
        return Capability(name, available=True, reason="not inside Docker, podman, Kubernetes, WSL2 or a sandbox")
    # Nothing to mend: where it is in the way, the rows that it hinders say so.
    return Capability(name, available=False, reason=f"inside {kind}")


def _newuidmap(name: str) -> Capability:
    if is_privileged():
        return Capability(name, available=False, reason="not needed as root")
    if Host().status("NoNewPrivs") == "1":
        reason = "no_new_privs is set, under which newuidmap(1) has no rights; one user id is mapped instead"
        return Capability(name, available=False, reason=reason)
    ranges = subordinate_ids()
    if ranges:
        first, count = ranges.split(":")[:2]
        return Capability(name, available=True, reason=f"{count} user ids from {first} on are mapped")
    reason = "not installed, or no range in /etc/subuid and /etc/subgid: one user id is mapped"
    mend = (
        "sudo apt install uidmap (elsewhere: shadow-utils), and sudo usermod --add-subuids 100000-165535 "
        '--add-subgids 100000-165535 "$USER"; without it files of other users show as nobody\'s'
    )
    return Capability(name, available=False, reason=reason, mend=mend)


def _store(name: str) -> Capability:
    store, there = default_store(os.environ), _existing(default_store(os.environ))
    if not os.access(there, os.W_OK | os.X_OK):
        mend = "set PYTEST_SANDBOX_HOME, or the ini key sandbox_store, to a directory of yours"
        return Capability(name, available=False, reason=f"{there} is not writable", mend=mend, required=True)
    free = shutil.disk_usage(there).free >> 20
    return Capability(name, available=True, reason=f"{store}, {free} MiB free", required=True)


def _existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _slirp(name: str) -> Capability:
    path, mend = shutil.which(name), "sudo apt install slirp4netns"
    if path is None:
        return Capability(name, available=False, reason="not installed", mend=mend)
    if not os.access(_TUN, os.R_OK | os.W_OK):
        reason = f"{path} needs {_TUN}, which is not for this user"
        return Capability(name, available=False, reason=reason, mend=f"sudo chmod 666 {_TUN}, as most systems have it")
    return Capability(name, available=True, reason=path)


def _cgroup(limit: str) -> Callable[[str], Capability]:
    def row(name: str) -> Capability:
        place = find().place(limit)
        if place.version:
            return Capability(name, available=True, reason=f"v{place.version}: {place.controller} in {place.base}")
        mend = "give the limit to the sandbox that this is in" if Host().is_sandbox() else place.hint
        return Capability(name, available=False, reason=place.reason, mend=mend)

    return row


def _cgroup_version(number: int) -> Callable[[str], Capability]:
    def row(name: str) -> Capability:
        hierarchy = find()
        limits = [place.controller for place in map(hierarchy.place, _LIMITS) if place.version == number]
        if limits:
            return Capability(name, available=True, reason=f"{', '.join(limits)} can be limited by it")
        # The other version does as well; where neither is there, the rows of the limits say what to do.
        return Capability(name, available=False, reason=f"no limit can be set by version {number}")

    return row


# The rows that are tried, by probes.py


def _tried(reason: str, mend: str = _UNKNOWN) -> Callable[[str], Capability]:
    """Return the row of a probe that no sandbox can do without; ``mend`` is for where nothing better is known."""
    return lambda name: _judge(name, reason, mend, required=True)


def _optional(reason: str, mend: str) -> Callable[[str], Capability]:
    return lambda name: _judge(name, reason, mend, required=False)


def _judge(name: str, reason: str, mend: str, *, required: bool) -> Capability:
    answer = _answers().get(name)
    if answer is None:
        return _not_tried(name, required=required)
    if answer.code == 0:
        return Capability(name, available=True, reason=reason.format(answer.detail), required=required)
    mend = explain(answer.call, answer.code) or mend
    return Capability(name, available=False, reason=str(answer), mend=mend, required=required)


def _not_tried(name: str, *, required: bool) -> Capability:
    entered, before = _answers().get("entered"), _answers().get("user-namespaces")
    if entered is None or entered.code == 0:
        reason, mend = f"no answer (after {_PATIENCE:g} s the probes are cut off)", "see the kernel log: sudo dmesg"
    elif not is_privileged() and before is not None and before.code != 0:
        reason, mend = "not tried without user-namespaces", "see to user-namespaces first" if required else ""
    else:
        reason, mend = f"not tried, as {entered}", explain(entered.call, entered.code) or _UNKNOWN
    return Capability(name, available=False, reason=reason, mend=mend, required=required)


def _user_namespaces(name: str) -> Capability:
    row = _judge(name, "made, and its user id map written", _UNKNOWN, required=not is_privileged())
    if row.available or row.required:
        return row
    return Capability(name, available=False, reason=f"not needed as root ({row.reason})")


def _overlayfs(name: str) -> Capability:
    there = _existing(default_store(os.environ))
    way = "as root" if is_privileged() else "in a user namespace, with userxattr"
    place = f"upper directory in {there}" if _upper_place() else "upper directory on tmpfs, as the store cannot hold it"
    return _judge(name, f"{way}; {place}", "boot a kernel with overlayfs", required=True)


def _tmpfs_upper(name: str) -> Capability:
    row = _judge(name, "a tmpfs can hold what changes", "", required=False)
    if row.available or not probe("overlayfs").available:
        return row
    # tmpfs takes user.* xattrs since Linux 6.6 only, and does without them well where it is not needed.
    return Capability(name, available=False, reason=f"not needed, as the store's disk serves ({row.reason})")


def _upper_place() -> str:
    there = _existing(default_store(os.environ))
    return there if os.access(there, os.W_OK | os.X_OK) and can_be_upper(there) else ""


@functools.cache
def _answers() -> dict[str, _Answer]:
    mode = "root" if is_privileged() else "nested" if Host().is_sandbox() else "user"
    place = _upper_place()
    with contextlib.ExitStack() as undo:
        try:
            directory = undo.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place)) if place else ""
            return dict(_parse(_ask([sys.executable, "-I", "-S", _PROBES, mode, directory])))
        except OSError as error:
            # With no process left, or on a full disk: what says so must not die of it.
            return {"entered": _Answer("", error.errno or errno.EIO, str(error.filename or "starting the probes"))}


def _ask(command: list[str], patience: float = _PATIENCE) -> str:
    """Return what ``command`` printed; one that hangs is killed with all that it has started."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as said:
        text = _read_until(said.fileno(), time.monotonic() + patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # One that the kernel does not let go of must not hold pytest as well.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    return text


def _read_until(fd: int, deadline: float) -> str:
    said = b""
    while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        said += chunk
    return said.decode(errors="replace")


def _parse(text: str) -> Iterator[tuple[str, _Answer]]:
    for line in text.splitlines():
        name, call, code, detail = line.split("\t", 3)
        yield name, _Answer(call, int(code), detail)


_ROWS: dict[str, Callable[[str], Capability]] = {
    "linux": _linux,
    "kernel": _kernel,
    "container": _container,
    "root": _root,
    "apparmor": _apparmor,
    "user-namespaces": _user_namespaces,
    "newuidmap": _newuidmap,
    "namespaces": _tried("{0}"),
    "proc": _tried("a fresh /proc and /sys can be mounted"),
    "seccomp": _tried("a filter can be installed"),
    "pidfd": _tried("pidfd_open(2), and setns(2) on what it returns"),
    "store": _store,
    "overlayfs": _overlayfs,
    "overlay-on-host": _tried("a copy-on-write view of {0}", "use Image.archive() instead of a copy of this machine"),
    "tmpfs-upper": _tmpfs_upper,
    "cgroup-memory": _cgroup("memory"),
    "cgroup-cpu": _cgroup("cpus"),
    "cgroup-pids": _cgroup("pids"),
    "cgroup-freezer": _cgroup("freezer"),
    "cgroup-v1": _cgroup_version(1),
    "cgroup-v2": _cgroup_version(2),
    "time-namespaces": _optional("clocks of its own", "boot a kernel with CONFIG_TIME_NS (Linux 5.6)"),
    "networks": _optional(
        "bridges and veth pairs can be made",
        "sudo modprobe -a bridge veth, or boot a kernel with CONFIG_BRIDGE and CONFIG_VETH",
    ),
    "netem": _optional(
        "delay and loss can be set",
        "sudo modprobe sch_netem (Fedora: in kernel-modules-extra), or boot a kernel with CONFIG_NET_SCH_NETEM",
    ),
    "nft": _optional("nf_tables answers", "sudo modprobe nf_tables, or boot a kernel with CONFIG_NF_TABLES"),
    "slirp4netns": _slirp,
}
