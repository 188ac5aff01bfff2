"""The files of images' archives, as other tools write them."""

from __future__ import annotations

import io
import json
from typing import Any

from pytest_sandbox_runtime.images.digest import digest_of, hex_of
from pytest_sandbox_runtime.images.manifest import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    layer_type,
)
from pytest_sandbox_runtime.images.packed import packing as packing_stream
from pytest_sandbox_runtime.images.platforms import Platform
from tests.unit.tars import tar_of

NAME = "docker.io/library/tiny:1"
PACKINGS = ("none", "gzip", "zstd")
BASE = tar_of({"bin/sh": b"#!", "etc/motd": b"base"})
TOP = tar_of({"etc/issue": b"top", "usr/big": bytes(range(1, 251)) * 1200})


def pack(data: bytes, kind: str) -> bytes:
    sink = io.BytesIO()
    with packing_stream(sink, kind) as stream:
        stream.write(data)
    return sink.getvalue()


def config_of(*layers: bytes, **fields: Any) -> bytes:
    return ImageConfig(
        platform=fields.pop("platform", Platform.host()), diff_ids=tuple(map(digest_of, layers)), **fields
    ).to_bytes()


def oci_files(
    *layers: bytes, packing: str = "none", names: tuple[str | None, ...] = (NAME,), **fields: Any
) -> dict[str, bytes]:
    """Return the files of a layout with one image."""
    blobs = [pack(layer, packing) for layer in layers]
    config = config_of(*layers, **fields)
    manifest = Manifest(
        Descriptor.to(OCI_CONFIG, config), tuple(Descriptor.to(layer_type(packing), blob) for blob in blobs)
    ).to_bytes()
    bare = Descriptor.to(OCI_MANIFEST, manifest)
    index = Index(tuple(bare.named(name) if name else bare for name in names))
    files = {f"blobs/sha256/{hex_of(digest_of(blob))}": blob for blob in (*blobs, config, manifest)}
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index.to_bytes(), **files}


def docker_files(*layers: bytes, tags: list[str] | None = None, packing: str = "none") -> dict[str, bytes]:
    """Return the files as Docker 20.10 saves them, its manifest.json last."""
    config = config_of(*layers)
    config_name = f"{hex_of(digest_of(config))}.json"
    paths = [f"{hex_of(digest_of(layer))}/layer.tar" for layer in layers]
    entry = {"Config": config_name, "RepoTags": ["tiny:1"] if tags is None else tags, "Layers": paths}
    files = {path: pack(layer, packing) for path, layer in zip(paths, layers, strict=True)}
    return {**files, config_name: config, "manifest.json": json.dumps([entry]).encode()}
