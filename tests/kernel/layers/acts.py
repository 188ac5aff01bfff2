"""What is done to a tree, and all that can be seen of it afterwards."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from pytest_sandbox_runtime.specs import SOURCE_DATE_EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence

Look = tuple[object, ...]
Act = tuple[str, str, str]
Picture = dict[bytes, Look]

OLD = 1_000_000

VERBS = (
    *("write", "append", "open", "mkdir", "symlink", "fifo", "link", "chmod", "touch", "age", "xattr", "hole", "whole"),
    *("unlink", "rmtree", "rename", "replace"),
)
NAMES = st.sampled_from(["a", "b", "c", os.fsdecode(b"\xe9"), "n" * 120])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ACTS = st.lists(st.tuples(st.sampled_from(VERBS), PATHS, PATHS), max_size=12)


def write(path: str, flags: int, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | flags)  # it may be a fifo that nobody reads
    os.write(fd, os.fsencode(text))
    os.close(fd)


def act(root: str, verb: str, name: str, other: str) -> None:
    path, second = f"{root}/{name}", f"{root}/{other}"
    if verb == "write":
        write(path, os.O_TRUNC, other)
    elif verb == "append":
        write(path, os.O_APPEND, "more")
    elif verb == "open":
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))  # copies it up, and changes nothing
    elif verb == "mkdir":
        os.mkdir(path)
    elif verb == "symlink":
        os.symlink(other, path)
    elif verb == "fifo":
        os.mkfifo(path)
    elif verb == "link":
        os.link(path, second, follow_symlinks=False)
    elif verb == "chmod":
        os.chmod(path, 0o6710 if len(other) > 1 else 0o755)
    elif verb == "touch":
        os.utime(path)
    elif verb == "age":
        os.utime(path, (OLD, OLD), follow_symlinks=False)
    elif verb == "xattr":
        os.setxattr(path, "user.note", os.fsencode(other) + b"\0\n=")
    elif verb == "hole":
        os.truncate(path, 200_000)
    elif verb == "whole":  # made and removed: nothing of it is left but a later mtime
        os.mkdir(f"{path}/gone")
        os.rmdir(f"{path}/gone")
    elif verb == "unlink":
        os.unlink(path)
    elif verb == "rmtree":
        remove_tree(path)
    elif verb == "rename":
        os.rename(path, second)
    else:
        remove_tree(path)
        os.mkdir(path)


def remove_tree(path: str) -> None:
    if os.path.isdir(path):  # some Pythons open a fifo to see whether it is a directory
        shutil.rmtree(path)


def carry_out(root: str, acts: Sequence[Act]) -> None:
    for verb, path, other in acts:
        # Most acts meet nothing, or something else, at their path; shutil.Error is an OSError.
        with suppress(OSError):
            act(root, verb, path, other)


def picture(root: str) -> Picture:
    """Return all that can be seen of a tree, times as a layer has them; of hard links, which names are one file."""
    seen: Picture = {}
    files: dict[tuple[int, int], list[bytes]] = {}
    top = os.fsencode(root)
    for folder, directories, names in os.walk(top):
        for path in [folder, *(os.path.join(folder, name) for name in sorted(directories + names))]:
            name = os.path.relpath(path, top)
            seen[name] = look(path)
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                files.setdefault((status.st_dev, status.st_ino), []).append(name)
    for linked in files.values():
        for name in linked:
            seen[name] += (tuple(sorted(set(linked))),)
    return seen


def look(path: bytes) -> Look:
    status = os.lstat(path)
    is_directory, is_file = stat.S_ISDIR(status.st_mode), stat.S_ISREG(status.st_mode)
    mtime = min(int(status.st_mtime), SOURCE_DATE_EPOCH)
    content: object = None
    if is_file:
        content = Path(os.fsdecode(path)).read_bytes()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    names = [name for name in os.listxattr(path, follow_symlinks=False) if ".overlay." not in name]
    attributes = [(name, os.getxattr(path, name)) for name in names] if is_directory or is_file else []
    return (status.st_mode, status.st_uid, status.st_gid, None if is_directory else mtime, content, sorted(attributes))
