"""Layers applied one over the other, and what is seen of each."""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.images.layer import AppliedLayer, apply_layer
from tests.unit.tars import Member, archive, directory, member, symlink

if TYPE_CHECKING:
    from pathlib import Path


class Layers:
    """Layers applied one over the other, the newest first."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.paths: list[Path] = []

    def apply(self, *members: Member, **options: Any) -> Path:
        """Apply a layer of ``members`` over those before it, as for an overlay with userxattr."""
        self.done = self.apply_bytes(archive(*members), **options)
        return self.paths[0]

    def apply_bytes(self, layer: bytes, **options: Any) -> AppliedLayer:
        target = self.place / f"layer-{len(self.paths)}"
        target.mkdir()
        lowers = [str(path) for path in self.paths]
        options = {"user_namespace": True, **options}
        done = apply_layer(io.BytesIO(layer), str(target), lowers=lowers, **options)
        self.paths.insert(0, target)
        return done


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "user.overlay.opaque" in os.listxattr(path) and os.getxattr(path, "user.overlay.opaque") == b"y"


BASE = (
    directory("etc", 0o751, mtime=7),
    member("etc/hosts", b"old"),
    directory("etc/apt", 0o700, mtime=8),
    member("etc/apt/sources", b"old"),
    directory("usr/lib"),
    symlink("lib", "usr/lib"),
)
