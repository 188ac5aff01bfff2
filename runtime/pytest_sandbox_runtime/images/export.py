"""PYTEST_DONT_REWRITE. Images written into archives that skopeo, podman and Docker load; the same bytes each time."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from typing import IO, TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.compressions import NONE
from pytest_sandbox_runtime.images.digest import hex_of, pour
from pytest_sandbox_runtime.images.documents import canonical
from pytest_sandbox_runtime.images.layout import MARKER, MAX_BLOB
from pytest_sandbox_runtime.images.manifest import Index, compression_of
from pytest_sandbox_runtime.images.packed import packing, unpacked
from pytest_sandbox_runtime.images.places import explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_sandbox_runtime.images.layout import Layout
    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.images.reference import Reference

    Named = tuple[Reference | None, Descriptor]

FORMATS = ("oci", "docker")


def save(
    layout: Layout,
    images: Sequence[Named],
    target: str | IO[bytes],
    *,
    format: str = "oci",  # noqa: A002 - the word of docker and podman
    compression: str = NONE,
) -> None:
    """Write ``images``, each with its name or none, into the archive ``target``: a path, or a stream.

    ``format`` is oci, or docker for what ``docker load`` of any age reads; ``compression`` none, gzip or zstd. The file
    is there when it is whole.
    """
    if format not in FORMATS:
        raise ImageError(f"{format!r} is no format of archives", hint=f"one of {', '.join(FORMATS)}")
    write = _write_oci if format == "oci" else _write_docker
    with _target(target) as file, packing(file, compression) as stream:
        write(layout, images, stream)
        stream.write(bytes(2 * tarfile.BLOCKSIZE))


@contextlib.contextmanager
def _target(target: str | IO[bytes]) -> Iterator[IO[bytes]]:
    if not isinstance(target, str):
        yield target
        return
    path = os.path.abspath(target)
    with explained(path, "the archive"):
        fd, partial = tempfile.mkstemp(prefix=".pytest-sandbox-", dir=os.path.dirname(path))
        try:
            with open(fd, "wb") as file:
                yield file
                os.fchmod(fd, 0o666 & ~_umask())
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise


def _umask() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next((int(line.split()[1], 8) for line in status if line.startswith("Umask:")), 0o022)


def _write_oci(layout: Layout, images: Sequence[Named], tar: IO[bytes]) -> None:
    entries, parts = [], {}
    for reference, named in images:
        descriptor, manifest = layout.manifest_of(named)
        bare = descriptor.bare()
        entries.append(bare.named(reference.with_default_tag().canonical) if reference else bare)
        parts.update({part.digest: part for part in (descriptor, manifest.config, *manifest.layers)})
    _add_bytes(tar, "oci-layout", MARKER)
    _add_bytes(tar, "index.json", Index(tuple(entries)).to_bytes())
    for digest in sorted(parts):
        with layout.open(parts[digest]) as blob:
            _add(tar, f"blobs/sha256/{hex_of(digest)}", blob, parts[digest].size)


def _write_docker(layout: Layout, images: Sequence[Named], tar: IO[bytes]) -> None:
    entries: dict[str, dict[str, object]] = {}
    configs: dict[str, Descriptor] = {}
    layers: dict[str, Descriptor] = {}
    for reference, named in images:
        _, manifest = layout.manifest_of(named)
        diff_ids = layout.config_of(manifest).diff_ids
        layers.update(zip(diff_ids, manifest.layers, strict=True))
        config = f"{hex_of(manifest.config.digest)}.json"
        configs[config] = manifest.config
        paths = [f"{hex_of(diff_id)}/layer.tar" for diff_id in diff_ids]
        entry = entries.setdefault(config, {"Config": config, "RepoTags": [], "Layers": paths})
        if reference:
            entry["RepoTags"] = [*_texts(entry["RepoTags"]), reference.with_default_tag().canonical]
    _add_bytes(tar, "manifest.json", canonical(list(entries.values())))
    for name in sorted(configs):
        _add_bytes(tar, name, layout.read(configs[name]))
    for diff_id in sorted(layers):
        _add_layer(layout, layers[diff_id], diff_id, tar)


def _texts(value: object) -> list[str]:
    return value if isinstance(value, list) else []


def _add_layer(layout: Layout, layer: Descriptor, diff_id: str, tar: IO[bytes]) -> None:
    name = f"{hex_of(diff_id)}/layer.tar"
    with layout.open(layer) as blob:
        if compression_of(layer.media_type) == NONE:
            _add(tar, name, blob, layer.size)
            return
        # Its size comes before it in a tar, and is not known before it is unpacked.
        with tempfile.TemporaryFile(dir=layout.path) as whole:
            with unpacked(blob, f"the layer {layer.digest}") as data:
                pour(data, whole.write, limit=MAX_BLOB, what=f"the layer {layer.digest}")
            size = whole.tell()
            whole.seek(0)
            _add(tar, name, whole, size)


def _add_bytes(tar: IO[bytes], name: str, data: bytes) -> None:
    _add(tar, name, io.BytesIO(data), len(data))


def _add(tar: IO[bytes], name: str, content: IO[bytes], size: int) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    tar.write(header.tobuf())
    pour(content, tar.write, limit=size, what=name)
    tar.write(bytes(-size % tarfile.BLOCKSIZE))
