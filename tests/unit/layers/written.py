"""Layers' tars from upper directories made by hand."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.images.layer import Identities, write_layer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OLD = 1_000_000
NO_MAP = Identities()


def layer_of(
    upper: Path,
    lowers: Sequence[Path] | None = None,
    *,
    identities: Identities = NO_MAP,
    user_namespace: bool = True,
) -> bytes:
    stream = io.BytesIO()
    names = None if lowers is None else [str(path) for path in lowers]
    digest = write_layer(str(upper), stream, lowers=names, user_namespace=user_namespace, identities=own(identities))
    layer = stream.getvalue()
    assert digest.diff_id == f"sha256:{hashlib.sha256(layer).hexdigest()}"
    assert digest.size == len(layer)
    return layer


def own(identities: Identities) -> Identities:
    """Whoever runs the tests is root inside."""
    if identities != Identities() or os.geteuid() == 0:
        return identities
    return Identities(((0, os.geteuid(), 1),), ((0, os.getegid(), 1),))


def members(layer: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(layer), encoding="utf-8", errors="surrogateescape") as tar:
        return {member.name: member for member in tar}


def make_old(root: Path) -> None:
    for folder, names, files in os.walk(root, topdown=False):
        for name in [*names, *files]:
            os.utime(os.path.join(folder, name), (OLD, OLD), follow_symlinks=False)


def small_tree(root: Path) -> None:
    (root / "etc").mkdir(mode=0o755)
    (root / "etc/hosts").write_text("here")
    (root / "etc/link").symlink_to("hosts")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(b"#!" * 700)
    os.link(root / "usr/bin/tool", root / "usr/bin/again")
    os.mkfifo(root / "usr/pipe")
