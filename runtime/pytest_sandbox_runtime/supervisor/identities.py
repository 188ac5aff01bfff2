"""PYTEST_DONT_REWRITE. A user namespace for a run without root: user_namespaces(7), newuidmap(1), subuid(5)."""

from __future__ import annotations

import os

from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.kernel.pseudo_files import write

_SEARCH = ("/usr/bin", "/bin", "/usr/local/bin")


def map_identities(subids: str) -> None:
    """Enter a new user namespace as its root.

    ``subids`` is "" or "first-uid:count:first-gid:count", what /etc/subuid and /etc/subgid give this user: those are
    mapped from 1 on, by newuidmap(1), which may; without them only 0 is, to the user.
    """
    uid, gid = os.geteuid(), os.getegid()
    if not subids:
        unshare(CloneFlag.NEWUSER)
        map_one((0, 0), (uid, gid))
        return
    entered, enter = os.pipe2(os.O_CLOEXEC)
    mapper = os.fork()
    if mapper == 0:
        os.close(enter)  # else its end of file would never come
        os.read(entered, 1)
        os._exit(0 if _map_all(os.getppid(), uid, gid, subids.split(":")) else 1)
    unshare(CloneFlag.NEWUSER)
    os.close(enter)
    os.close(entered)
    _, status = os.waitpid(mapper, 0)
    if status != 0:
        map_one((0, 0), (uid, gid))


def map_one(inside: tuple[int, int], outside: tuple[int, int], own: int | None = None) -> None:
    """Let one uid and one gid ``inside`` this process's new user namespace be those that are outside.

    ``own`` is a descriptor of its directory in proc(5), for where /proc may be read-only.
    """
    directory = "/proc/self/" if own is None else ""
    write(f"{directory}setgroups", "deny", own)
    for name, mine, theirs in zip(("uid_map", "gid_map"), inside, outside):  # noqa: B905  two of each
        write(f"{directory}{name}", f"{mine} {theirs} 1", own)


def _map_all(pid: int, uid: int, gid: int, subids: list[str]) -> bool:
    first_uid, uids, first_gid, gids = subids
    # gid first: when that fails, the uid map is still empty and one identity can be had.
    return _run("newgidmap", pid, gid, first_gid, gids) and _run("newuidmap", pid, uid, first_uid, uids)


def _run(tool: str, pid: int, own: int, first: str, count: str) -> bool:
    argv = [tool, str(pid), "0", str(own), "1", "1", first, count]
    for folder in _SEARCH:
        try:
            child = os.posix_spawn(f"{folder}/{tool}", argv, {})
        except FileNotFoundError:
            continue
        return os.waitpid(child, 0)[1] == 0
    return False
