"""The changes of real overlays, against what two looks at the merged tree say."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import stat
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.changes import Change, Changes, read_changes
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytestmark = pytest.mark.needs("overlayfs")

Look = tuple[object, ...]
Act = tuple[str, str, str]


def act_of(verb: str, path: str, other: str) -> Act:
    return verb, path, other


WRITES = ("write", "append", "open", "mkdir", "symlink", "fifo", "link", "chmod", "touch")
REMOVALS = ("unlink", "rmtree", "rename", "replace")
PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
ACTS = st.lists(st.builds(act_of, st.sampled_from(WRITES + REMOVALS), PATHS, PATHS), max_size=12)


def write(path: str, flags: int, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | flags)  # it may be a fifo that nobody reads
    os.write(fd, text.encode())
    os.close(fd)


def act(root: str, verb: str, name: str, other: str) -> None:
    path, second = f"{root}/{name}", f"{root}/{other}"
    if verb == "write":
        write(path, os.O_TRUNC, other)
    elif verb == "append":
        write(path, os.O_APPEND, "more")
    elif verb == "open":
        os.close(os.open(path, os.O_RDWR))  # copies it up, and changes nothing
    elif verb == "mkdir":
        os.mkdir(path)
    elif verb == "symlink":
        os.symlink(other, path)
    elif verb == "fifo":
        os.mkfifo(path)
    elif verb == "link":
        os.link(path, second)
    elif verb == "chmod":
        os.chmod(path, 0o700 if len(other) > 1 else 0o755)
    elif verb == "touch":
        os.utime(path)
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


def look(path: Path) -> Look:
    status = path.lstat()
    common = (stat.S_IFMT(status.st_mode), status.st_mode, status.st_uid, status.st_gid)
    if path.is_dir() and not path.is_symlink():
        return common
    content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
    return (*common, status.st_mtime_ns, content)


def picture(root: str) -> dict[str, Look]:
    top = Path(root)
    return {f"/{path.relative_to(top)}": look(path) for path in top.rglob("*")}


def compare(before: dict[str, Look], after: dict[str, Look]) -> Changes:
    gone = before.keys() - after.keys()
    modified = {path for path in before.keys() & after.keys() if before[path] != after[path]}
    return Changes(
        added=after.keys() - before.keys(),
        modified=modified,
        deleted=[path for path in gone if is_directory(after.get(os.path.dirname(path)), path)],
    )


def is_directory(parent: Look | None, path: str) -> bool:
    return path.count("/") == 1 or (parent is not None and parent[0] == stat.S_IFDIR)


def mount_overlay(base: str, name: str, lowers: Sequence[str]) -> tuple[str, str]:
    upper, work, merged = (f"{base}/{name}-{part}" for part in ("upper", "work", "merged"))
    for path in (upper, work, merged):
        os.mkdir(path)
    options = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}"
    mount("overlay", merged, "overlay", 0, options + (",userxattr" if os.getuid() else ""))
    return upper, merged


def enter_private_mounts() -> None:
    if os.geteuid():
        uid, gid = os.geteuid(), os.getegid()
        unshare(CloneFlag.NEWUSER | CloneFlag.NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    else:
        unshare(CloneFlag.NEWNS)
    mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)


def in_private_mounts(work: Callable[..., Any], *arguments: object) -> Any:
    """Return what ``work`` returns in a child of its own mount namespace, on a tmpfs that ends with it."""
    with tempfile.TemporaryDirectory() as base:
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            run_as_child(writer, base, work, arguments)
        os.close(writer)
        with open(reader, "rb") as file:
            said = file.read()
        os.waitpid(pid, 0)
    result, failure = pickle.loads(said)
    assert failure is None, failure
    return result


def run_as_child(writer: int, base: str, work: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    signal.alarm(60)
    try:
        enter_private_mounts()
        mount("tmpfs", base, "tmpfs")
        said: tuple[Any, str | None] = (work(base, *arguments), None)
    except BaseException:
        said = (None, traceback.format_exc())
    os.write(writer, pickle.dumps(said))
    os._exit(0)


def change_a_stack(
    base: str, image: Sequence[Act], layer: Sequence[Act], acts: Sequence[Act]
) -> tuple[Changes, Changes]:
    """Write a bottom layer, a middle one over it, and change both; return the changes as read and as seen."""
    bottom = f"{base}/bottom"
    os.mkdir(bottom)
    carry_out(bottom, image)
    middle, first = mount_overlay(base, "first", [bottom])
    carry_out(first, layer)
    upper, merged = mount_overlay(base, "second", [middle, bottom])
    before = picture(merged)
    carry_out(merged, acts)
    return read_changes([("/", upper, (middle, bottom))]), compare(before, picture(merged))


def test_each_kind_of_change_is_read_from_a_real_overlay() -> None:
    image = [
        ("mkdir", "a", ""),
        ("write", "a/a", "old"),
        ("write", "a/b", "old"),
        ("mkdir", "b", ""),
        ("write", "b/a", "x"),
    ]
    acts = [
        ("write", "a/a", "new"),
        ("unlink", "a/b", ""),
        ("open", "b/a", ""),
        ("mkdir", "c", ""),
        ("write", "c/a", "x"),
    ]
    read, seen = in_private_mounts(change_a_stack, image, (), acts)
    assert read == seen == Changes(added=["/c", "/c/a"], modified=["/a/a"], deleted=["/a/b"])
    assert [change.type for change in read] == ["file", "file", "directory", "file"]


def test_a_directory_that_is_removed_and_made_again_loses_what_was_in_it() -> None:
    image = [("mkdir", "a", ""), ("write", "a/a", "old"), ("mkdir", "a/b", ""), ("write", "a/b/a", "old")]
    acts = [("replace", "a", ""), ("write", "a/c", "new"), ("mkdir", "a/b", "")]
    read, seen = in_private_mounts(change_a_stack, image, (), acts)
    assert read == seen == Changes(added=["/a/c"], deleted=["/a/a", "/a/b/a"])


def test_what_a_middle_layer_has_deleted_counts_as_added_again() -> None:
    image = [("mkdir", "a", ""), ("write", "a/a", "old"), ("write", "b", "old")]
    layer = [("rmtree", "a", ""), ("unlink", "b", "")]
    acts = [("mkdir", "a", ""), ("write", "b", "new")]
    read, seen = in_private_mounts(change_a_stack, image, layer, acts)
    assert read == seen
    assert list(read) == [Change("/a", "added", "directory"), Change("/b", "added", "file")]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(image=ACTS, layer=ACTS, acts=ACTS)
def test_what_is_read_is_what_is_seen(image: list[Act], layer: list[Act], acts: list[Act]) -> None:
    read, seen = in_private_mounts(change_a_stack, image, layer, acts)
    assert read == seen
