"""PYTEST_DONT_REWRITE. Removing what sandboxes leave on disk: one's own at once, a dead run's beside the work."""

from __future__ import annotations

import fcntl
import os

from pytest_sandbox_runtime.cgroups import find, remains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Below a run's directory: where the supervisor keeps one directory for each sandbox.
SANDBOXES = "sandboxes"
# More directories than this are removed by a fork, so that nobody waits for it. Without root a copy of the machine has
# some hundred to begin with, for its many overlays.
_AT_ONCE = 512


def remove_tree(path: str) -> None:
    """Remove ``path`` and all below it, at once or, where it is large, in a process beside this one."""
    if not _remove(path, _AT_ONCE):
        _beside(lambda: _remove(path, -1))


def _beside(work: Callable[[], object]) -> None:
    """Do ``work`` in a fork, which never goes on as a supervisor, whatever happens."""
    if os.fork() == 0:
        try:
            work()
        finally:
            os._exit(0)


def _remove(path: str, budget: int) -> bool:
    """Remove up to ``budget`` entries (-1: all); whether nothing is left."""
    walk = [path]
    while walk:
        try:
            below = _remove_entries(walk[-1])
        except NotADirectoryError:
            os.unlink(walk[-1])
            below = []
        except FileNotFoundError:
            below = []
        if below:
            walk.extend(below)
        else:
            _rmdir(walk.pop())
        budget -= 1
        if budget == 0:
            return not walk
    return True


def _rmdir(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return


def _remove_entries(path: str) -> list[str]:
    """Unlink what is no directory in ``path``; return the directories."""
    try:
        entries = os.scandir(path)
    except PermissionError:
        os.chmod(path, 0o700)
        entries = os.scandir(path)
    with entries:
        below = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            else:
                os.unlink(entry.path)
    return below


def remove_run(run: str) -> None:
    """Remove the directory of a run that has ended, and its lock."""
    _remove(run, -1)
    os.unlink(lock_of(run))


def sweep(run: str) -> None:
    """Remove the directories of runs whose supervisor is dead: their lock, held for life, can be had."""
    runs, own = os.path.split(run)
    others = [os.path.join(runs, name) for name in os.listdir(runs) if name != own]
    if others:
        _beside(lambda: _sweep_all(others))


def _sweep_all(runs: list[str]) -> None:
    for run in runs:
        _sweep_one(run)


def _sweep_one(path: str) -> None:
    lock = lock_of(path)
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        _remove(path, -1)
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        _remove(path, -1)
        # Only what is known to be dead: other stores' runs have their groups beside these.
        dead = os.path.basename(path)
        remains(find(), lambda name: name != dead)
        os.unlink(lock)
    finally:
        os.close(fd)


def kept_path(run: str, name: str) -> str:
    """Return where the directory of sandbox ``name`` of ``run`` goes when it is kept."""
    runs, run_name = os.path.split(run)
    return os.path.join(os.path.dirname(runs), "kept", f"{run_name}-{name}")


def lock_of(run: str) -> str:
    """Return the lock file of the run in directory ``run``."""
    runs, name = os.path.split(run)
    return os.path.join(os.path.dirname(runs), "locks", f"run-{name}")
