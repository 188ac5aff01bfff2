"""Images of random layers."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.manifest import Descriptor, ImageConfig, layer_type
from pytest_sandbox_runtime.images.packed import packing
from pytest_sandbox_runtime.images.platforms import Platform
from pytest_sandbox_runtime.images.reference import Reference

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.store import Store


@dataclass(frozen=True)
class Pushed:
    """An image that another tool has pushed: its digest, and that of each of its layers."""

    digest: str
    layers: tuple[str, ...]


def layer_tar(number: int, size: int = 300_000) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in (("bin/sh", b"#!"), (f"data/{number}", os.urandom(size // 2) + bytes(size // 2))):
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o755
            tar.addfile(header, io.BytesIO(content))
    return sink.getvalue()


def store_image(
    store: Store, name: str, *, layers: int = 3, kind: str = "gzip", platform: Platform | None = None
) -> Descriptor:
    """Put an image of random layers into ``store``."""
    descriptors, diff_ids = [], []
    for number in range(layers):
        tar, packed = layer_tar(number), io.BytesIO()
        with packing(packed, kind) as stream:
            stream.write(tar)
        descriptors.append(Descriptor(layer_type(kind), *store.images.add(io.BytesIO(packed.getvalue()), store.lease)))
        diff_ids.append(digest_of(tar))
    config = ImageConfig(platform=platform or Platform.host(), diff_ids=tuple(diff_ids))
    image = store.add_image(config, descriptors)
    store.images.tag(Reference.parse(name), image, store.lease)
    return image
