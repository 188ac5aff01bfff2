"""What a run keeps on disk: a directory of its own, and a lock that is held for as long as its supervisor lives.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
from dataclasses import dataclass

from pytest_sandbox_runtime.errors import EngineError
from pytest_sandbox_runtime.hints import Host
from pytest_sandbox_runtime.rootfs.host import read_mounts
from pytest_sandbox_runtime.supervisor.removal import SANDBOXES, lock_of


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one run, and the descriptor of its lock, which the supervisor inherits."""

    path: str
    lock: int


def create_run(store: str) -> RunDirectory:
    """Make the directory of a new run in ``store``; raises EngineError where nothing can be written."""
    path = os.path.join(store, "runs", os.urandom(6).hex())
    lock_path = lock_of(path)
    try:
        os.makedirs(store, mode=0o700, exist_ok=True)
        for folder in (os.path.dirname(path), os.path.dirname(lock_path)):
            os.makedirs(folder, exist_ok=True)
        # flock(2) belongs to the open file, so it passes to the supervisor with the descriptor and dies with it.
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.mkdir(path, 0o755)
        os.mkdir(os.path.join(path, SANDBOXES), 0o755)
    except OSError as error:
        msg = f"cannot write to the store {store}: {error.strerror}"
        raise EngineError(
            msg, hint="set PYTEST_SANDBOX_HOME, or the ini key sandbox_store, to a directory of yours"
        ) from error
    return RunDirectory(path, lock)


def can_be_upper(directory: str) -> bool:
    """Whether overlayfs takes a directory there as its upper one: not on an overlay, as in a container, nor on NFS."""
    kinds = {"overlay", "nfs", "nfs4", "fuse", "9p", "virtiofs", "vfat", "exfat", "squashfs"}
    mounts = read_mounts()
    path = os.path.realpath(directory)
    while path not in mounts:
        path = os.path.dirname(path)
    return mounts[path].split(".")[0] not in kinds


def subordinate_ids() -> str:
    """Return this user's "first-uid:count:first-gid:count" of subuid(5) and subgid(5), or "" without newuidmap(1).

    With no_new_privs, as in every sandbox, that has no rights.
    """
    if Host().status("NoNewPrivs") == "1":
        return ""
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        return ""
    names = {str(os.getuid())}
    # In a container, the user may have a number only.
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    ranges = [_first_range(path, names) for path in ("/etc/subuid", "/etc/subgid")]
    return ":".join(ranges) if all(ranges) else ""


def _first_range(path: str, names: set[str]) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        for line in file:
            name, _, rest = line.strip().partition(":")
            if name in names and rest.count(":") == 1:
                return rest
    return ""
