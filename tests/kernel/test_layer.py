"""Layers on real overlays: what is seen over a layer that was written and applied is what was seen in the first place."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import signal
import stat
import tarfile
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.images.layer import Identities, apply_layer, write_layer
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl
from pytest_sandbox_runtime.specs import SOURCE_DATE_EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytestmark = pytest.mark.needs("overlayfs")

Look = tuple[object, ...]
Act = tuple[str, str, str]
Picture = dict[bytes, Look]

NOBODY = 65534
OLD = 1_000_000
AS_USER = pytest.mark.parametrize(
    "as_user", [pytest.param(False, marks=pytest.mark.needs("root")), True], ids=["root", "userxattr"]
)

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


def directory_times(root: str) -> dict[str, int]:
    return {
        os.path.relpath(folder, root): int(os.lstat(folder).st_mtime)
        for folder, _, _ in os.walk(root)
        if folder != root
    }


def stack(base: str, name: str, lowers: Sequence[str], *, user: bool) -> tuple[str, str]:
    upper, work, merged = (f"{base}/{name}-{part}" for part in ("upper", "work", "merged"))
    for path in (upper, work, merged):
        os.mkdir(path)
    options = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}"
    mount("overlay", merged, "overlay", 0, options + (",userxattr" if user else ",redirect_dir=off,metacopy=off"))
    return upper, merged


def view(base: str, name: str, layers: Sequence[str], *, user: bool) -> str:
    """Return where ``layers``, top first, are seen as one tree."""
    return stack(base, name, layers, user=user)[1]


def in_private_mounts(work: Callable[..., Any], *arguments: Any, as_user: bool) -> Any:
    """Return what ``work`` returns in a child of its own mount namespace, on a tmpfs that ends with it."""
    with tempfile.TemporaryDirectory() as base:
        os.chmod(base, 0o777)
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            run_as_child(writer, base, work, arguments, as_user=as_user)
        os.close(writer)
        with open(reader, "rb") as file:
            said = file.read()
        os.waitpid(pid, 0)
    result, failure = pickle.loads(said)
    assert failure is None, failure
    return result


def run_as_child(
    writer: int, base: str, work: Callable[..., Any], arguments: tuple[Any, ...], *, as_user: bool
) -> None:
    signal.alarm(120)
    try:
        enter(as_user=as_user)
        mount("tmpfs", base, "tmpfs")
        said: tuple[Any, str | None] = (work(base, *arguments), None)
    except BaseException:
        said = (None, traceback.format_exc())
    with open(writer, "wb") as file:
        file.write(pickle.dumps(said))
    os._exit(0)


def enter(*, as_user: bool) -> None:
    os.umask(0o022)
    if not as_user:
        unshare(CloneFlag.NEWNS)
    else:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            prctl(Prctl.SET_DUMPABLE, 1)  # else /proc/self belongs to root
        uid, gid = os.geteuid(), os.getegid()
        unshare(CloneFlag.NEWUSER | CloneFlag.NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)


def written(upper: str, lowers: Sequence[str] | None, *, user: bool) -> bytes:
    stream = io.BytesIO()
    digest = write_layer(upper, stream, lowers=lowers, user_namespace=user)
    content = stream.getvalue()
    assert digest == (f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
    return content


def applied(base: str, name: str, layer: bytes, lowers: Sequence[str], *, user: bool) -> str:
    target = f"{base}/{name}"
    os.mkdir(target)
    done = apply_layer(io.BytesIO(layer), target, lowers=lowers, user_namespace=user)
    assert (done.diff_id, done.size) == (f"sha256:{hashlib.sha256(layer).hexdigest()}", len(layer))
    return target


def there_and_back(
    base: str, user: bool, image: Sequence[Act], first: Sequence[Act], second: Sequence[Act]
) -> tuple[list[tuple[Picture, Picture]], list[tuple[bytes, bytes]]]:
    """Make an image of three layers by overlays; write and apply each, over what was applied before.

    Return what is seen in the first place and afterwards, and each layer as it is written first and again: from the
    overlay over the applied layers, on which the same was done.
    """
    bottom = f"{base}/bottom"
    os.mkdir(bottom)
    carry_out(bottom, image)
    copies = [applied(base, "copy", written(bottom, (), user=user), (), user=user)]
    pictures = [(picture(bottom), picture(view(base, "view", copies, user=user)))]
    layers = []
    for name, acts in (("first", first), ("second", second)):
        upper, merged = stack(base, name, copies, user=user)
        carry_out(merged, acts)
        # Seen anew: without root, a file that was linked since has two inode numbers as long as it is remembered.
        before = picture(view(base, f"{name}-before", [upper, *copies], user=user))
        layer = written(upper, copies, user=user)
        again, merged_again = stack(base, f"{name}-again", copies, user=user)
        carry_out(merged_again, acts)
        layers.append((layer, written(again, copies, user=user)))
        copies = [applied(base, f"{name}-copy", layer, copies, user=user), *copies]
        pictures.append((before, picture(view(base, f"{name}-view", copies, user=user))))
    return pictures, layers


def assert_kept(as_user: bool, *acts: Sequence[Act]) -> list[bytes]:
    pictures, layers = in_private_mounts(there_and_back, as_user, *acts, as_user=as_user)
    for before, after in pictures:
        assert after == before
    for layer, again in layers:
        assert layer == again
    return [layer for layer, _ in layers]


def names_in(layer: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return tar.getnames()


IMAGE: list[Act] = [
    *(("mkdir", name, "") for name in ("a", "a/b", "c")),
    *(("write", name, "old") for name in ("a/a", "a/b/a", "a/b/b", "b", "c/a")),
    ("link", "c/a", "c/b"),
    ("age", "c", ""),
]


@AS_USER
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(image=ACTS, first=ACTS, second=ACTS)
def test_what_was_seen_is_seen_again(as_user: bool, image: list[Act], first: list[Act], second: list[Act]) -> None:
    assert_kept(as_user, [*IMAGE, *image], first, second)


@AS_USER
def test_what_is_gone_is_a_whiteout_and_what_is_as_before_is_left_out(as_user: bool) -> None:
    acts: list[Act] = [("unlink", "b", ""), ("open", "a/a", ""), ("write", "a/b/a", "new"), ("whole", "c", "")]
    layer, _ = assert_kept(as_user, IMAGE, acts, [])
    assert names_in(layer) == [".wh.b", "a", "a/b", "a/b/a"]


@AS_USER
def test_a_directory_made_again_says_what_is_gone_and_not_how(as_user: bool) -> None:
    acts: list[Act] = [("replace", "a", ""), ("mkdir", "a/b", ""), ("write", "a/b/c", "new")]
    layer, _ = assert_kept(as_user, IMAGE, acts, [])
    assert names_in(layer) == ["a", "a/.wh.a", "a/b", "a/b/.wh.a", "a/b/.wh.b", "a/b/c"]
    removed: list[Act] = [("unlink", "a/a", ""), ("unlink", "a/b/a", ""), ("unlink", "a/b/b", "")]
    assert assert_kept(as_user, IMAGE, [*removed, ("write", "a/b/c", "new")], [])[0] == layer


@AS_USER
def test_nothing_changed_is_an_empty_layer(as_user: bool) -> None:
    layer, _ = assert_kept(as_user, IMAGE, [("open", "a/a", ""), ("whole", "a/b", "")], [])
    assert layer == bytes(1024)


@AS_USER
def test_a_copy_of_one_of_two_names_is_a_file_of_its_own(as_user: bool) -> None:
    layer, _ = assert_kept(as_user, IMAGE, [("open", "c/a", "")], [])
    assert names_in(layer) == ["c", "c/a"]


CAPABILITY = b"\1\0\0\2\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"


def owned_layer() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, uid in (("home", tarfile.DIRTYPE, 33), ("home/file", b"0", 33), ("home/link", b"2", 34)):
            header = tarfile.TarInfo(name)
            header.type, header.uid, header.gid, header.mode, header.linkname = kind, uid, uid + 1, 0o755, "x"
            tar.addfile(header)
    return stream.getvalue()


def change_owned(base: str, user: bool) -> tuple[str, bytes]:
    """Apply a layer with owners, change it in an overlay, and return the upper directory and the layer of it."""
    lower = applied(base, "lower", owned_layer(), (), user=user)
    upper, merged = stack(base, "owned", [lower], user=user)
    os.chmod(f"{merged}/home/file", 0o4711)
    os.rename(f"{merged}/home/link", f"{merged}/home/moved")
    Path(merged, "ping").touch()
    os.setxattr(f"{merged}/ping", "security.capability", CAPABILITY)
    Path(merged, "new").mkdir(mode=0o700)
    return upper, written(upper, [lower], user=user)


def change_as_many(base: str, user: bool) -> bytes:
    upper, _ = change_owned(base, user)
    for path, uid in (("new", 1000), ("home/file", 7)):
        os.chown(f"{base}/owned-merged/{path}", uid, uid)
    os.chmod(f"{base}/owned-merged/home/file", 0o4711)
    return written(upper, [f"{base}/lower"], user=user)


def in_namespace_of_many(base: Path) -> tuple[bytes, int]:
    """Do change_as_many below ``base`` as a user whom newuidmap(1) has given 65536 more ids."""
    readers, writers = zip(*(os.pipe() for _ in range(2)), strict=True)
    pid = os.fork()
    if not pid:
        os.read(readers[0], 1)
        run_many(writers[1], str(base), readers[0])
    os.close(writers[1])
    os.chown(base, NOBODY, NOBODY)
    os.write(writers[0], b"x")
    with open(readers[1], "rb") as said:
        assert said.read(1) == b"x"
        for kind in ("uid", "gid"):
            Path(f"/proc/{pid}/{kind}_map").write_text(f"0 {NOBODY} 1\n1 100000 60000")
        os.write(writers[0], b"x")
        layer = said.read()
    assert os.waitpid(pid, 0)[1] == 0
    for fd in (readers[0], writers[0]):
        os.close(fd)
    return layer, pid


def run_many(writer: int, base: str, reader: int) -> None:
    status = 1
    signal.alarm(60)
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl(Prctl.SET_DUMPABLE, 1)
        unshare(CloneFlag.NEWUSER | CloneFlag.NEWNS)
        os.write(writer, b"x")
        os.read(reader, 1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)
        with open(writer, "wb") as file:
            file.write(change_as_many(base, user=True))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


@pytest.mark.needs("root")
def test_root_and_a_user_with_many_ids_make_the_same_bytes() -> None:
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o711)
        base = Path(top, "base")
        base.mkdir()
        inside, _ = in_namespace_of_many(base)
        many = ((0, NOBODY, 1), (1, 100000, 60000))
        outside = io.BytesIO()
        options = {"lowers": [f"{base}/lower"], "user_namespace": True, "identities": Identities(many, many)}
        write_layer(f"{base}/owned-upper", outside, **options)  # type: ignore[arg-type]
    as_root = in_private_mounts(change_as_many, False, as_user=False)
    assert as_root == inside == outside.getvalue()
    with tarfile.open(fileobj=io.BytesIO(as_root)) as tar:
        found = {member.name: (member.uid, member.gid) for member in tar}
    assert found["home"] == (33, 34)
    assert found["home/file"] == (7, 7)
    assert found["home/moved"] == (34, 35)
    assert found["new"] == (1000, 1000)


def test_owners_that_one_user_cannot_set_survive_a_copy_up() -> None:
    _, layer = in_private_mounts(change_owned, True, as_user=True)
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        found = {member.name: member for member in tar}
    assert (found["home"].uid, found["home"].gid) == (33, 34)
    assert (found["home/file"].uid, found["home/file"].gid, found["home/file"].mode) == (33, 34, 0o4711)
    kept = found["ping"].pax_headers["SCHILY.xattr.security.capability"]
    assert kept.encode("utf-8", "surrogateescape") == CAPABILITY


def test_a_hundred_thousand_members_are_applied_in_seconds() -> None:
    def apply_many(base: str) -> float:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for number in range(100_000):
                tar.addfile(tarfile.TarInfo(f"{number % 100}/{'.wh.' if number % 10 == 0 else ''}{number}"))
        began = time.process_time()
        applied(base, "many", stream.getvalue(), (), user=True)
        return time.process_time() - began

    assert in_private_mounts(apply_many, as_user=True) < 60
