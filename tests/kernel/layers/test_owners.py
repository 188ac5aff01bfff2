"""Owners in layers are the same, whoever writes them, and survive where they cannot be set."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import tempfile
import traceback
from pathlib import Path

import pytest

from pytest_sandbox_runtime.images.layer import Identities, write_layer
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl
from tests.kernel.layers.overlays import NOBODY, applied, in_private_mounts, stack, written
from tests.unit.layers.attributes import CAPABILITY

pytestmark = pytest.mark.needs("overlayfs")


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
