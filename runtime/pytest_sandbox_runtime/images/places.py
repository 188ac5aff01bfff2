"""PYTEST_DONT_REWRITE. That the store is its user's alone, and what is said where it cannot be used."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import stat
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import SandboxError
from pytest_sandbox_runtime.images.home import ELSEWHERE, default_store

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT)


def command_on(store: str, words: str) -> str:
    """Return what to paste into a shell for the command ``pytest-sandbox`` to do ``words`` on that store."""
    elsewhere = "" if store == default_store(os.environ) else f"PYTEST_SANDBOX_HOME={shlex.quote(store)} "
    return f"{elsewhere}pytest-sandbox {words}"


def open_private(path: str, *below: str) -> None:
    """Make ``path`` and directories in it, for this user alone; raises SandboxError where it is somebody else's."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _make_private(path)
    status = os.stat(path)
    if status.st_uid != os.geteuid():
        msg = f"the store {path} belongs to user {status.st_uid}, and this is user {os.geteuid()}"
        raise SandboxError(msg, hint=f"sudo may have kept HOME: {ELSEWHERE}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        msg = f"the store {path} can be written by other users"
        raise SandboxError(msg, hint=f"name a directory of its own, or run chmod 700 {path}")
    # What is in them is private even where the directory around them was made for all to read.
    for name in below:
        _make_private(os.path.join(path, name))


def _make_private(directory: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)


@contextlib.contextmanager
def explained(place: str, what: str = "the store") -> Iterator[None]:
    """Turn an OSError of what is done in ``place`` into a SandboxError that names it and says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, SandboxError):
            raise
        hint = f"free some space (pytest-sandbox prune), or {ELSEWHERE}" if error.errno in _FULL else ELSEWHERE
        msg = f"{what} {place} cannot be used: {error.strerror or error} ({error.filename or place})"
        raise SandboxError(msg, hint=hint) from error


def remove_tree(path: str) -> None:
    """Remove the directory ``path``, if it is there, whatever its modes and owners."""
    from pytest_sandbox_runtime.images.mapped import worker

    if os.path.isdir(path):
        worker().call(_remove_tree, path)


def _remove_tree(path: str) -> None:
    if os.geteuid() != 0:
        _make_writable(path)
    shutil.rmtree(path)


def _make_writable(path: str) -> None:
    # An image has directories that not even their owner may write in.
    os.chmod(path, 0o700)
    for directory, names, _ in os.walk(path):
        for name in names:
            below = os.path.join(directory, name)
            if not os.path.islink(below):
                os.chmod(below, 0o700)


def tree_size(path: str) -> int:
    """Return how many bytes the files below ``path`` take on disk."""
    total = 0
    seen: set[int] = set()
    walk = [path]
    while walk:
        with contextlib.suppress(FileNotFoundError, PermissionError), os.scandir(walk.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if status.st_nlink == 1 or status.st_ino not in seen:
                    total += status.st_blocks * 512
                    seen.add(status.st_ino)
                if entry.is_dir(follow_symlinks=False):
                    walk.append(entry.path)
    return total
