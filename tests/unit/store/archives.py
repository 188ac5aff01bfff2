"""Small archives of root file systems, and the layers that a store has of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.unit.tars import tar_of

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.store import Store

FILES = {"bin/sh": b"#!", "etc/motd": b"hello", "usr/lib/os-release": b"ID=tiny", "usr/share/big": b"x" * 300_000}


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(tar_of(files))
    return path


def layers_of(store: Store) -> list[str]:
    return sorted(os.listdir(Path(store.path) / "layers"))
