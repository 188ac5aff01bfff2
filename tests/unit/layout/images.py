"""Images that are put into a layout, and what it then holds."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.images.layout import Layout, canonical_name
from pytest_sandbox_runtime.images.leases import Leases
from pytest_sandbox_runtime.images.manifest import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Manifest,
)
from pytest_sandbox_runtime.images.platforms import Platform
from pytest_sandbox_runtime.images.reference import Reference

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.leases import Lease


def again(layout: Layout) -> Layout:
    above = Path(layout.path).parent
    return Layout(layout.path, str(above / "index.lock"), Leases(str(above / "leases")))


def add_image(layout: Layout, lease: Lease, content: bytes = bytes(1024), platform: str = "linux/amd64") -> Descriptor:
    layer = Descriptor(OCI_LAYER, *layout.add(io.BytesIO(content), lease))
    config = ImageConfig(platform=Platform.parse(platform), diff_ids=(layer.digest,))
    manifest = Manifest(layout.add_bytes(config.to_bytes(), OCI_CONFIG, lease), (layer,))
    return layout.add_bytes(manifest.to_bytes(), OCI_MANIFEST, lease)


def name(text: str) -> Reference:
    return Reference.parse(text)


def names(layout: Layout) -> list[str | None]:
    return [canonical_name(one) for one in layout.index().manifests]


def remains(layout: Layout) -> list[str]:
    return [one for one in os.listdir(layout.path) if one.startswith(".")]
