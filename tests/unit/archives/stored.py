"""Archives on disk, and what a store has after one was loaded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.unit.trees import files_below

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.images.store import Store


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def files_of(store: Store, image: Descriptor) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for root in reversed(store.roots_of(store.images.manifest_of(image)[1])):
        found |= files_below(root)
    return found


def is_empty(store: Store) -> bool:
    places = ("layers", "builds", "images/blobs/sha256")
    hidden = [name for name in os.listdir(f"{store.path}/images") if name.startswith(".")]
    return (
        not store.images.index().manifests
        and not hidden
        and not any(os.listdir(f"{store.path}/{one}") for one in places)
    )
