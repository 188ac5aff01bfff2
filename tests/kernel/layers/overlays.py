"""Overlays in mounts of their own, as root or in a user namespace; layers that are written from them and applied."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import signal
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.images.layer import apply_layer, write_layer
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOBODY = 65534


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
