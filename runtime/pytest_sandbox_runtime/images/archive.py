"""PYTEST_DONT_REWRITE. Loads images: archives of OCI and of Docker, layouts' directories, root file systems."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError, SandboxError
from pytest_sandbox_runtime.images.compressions import NONE, sniff
from pytest_sandbox_runtime.images.digest import hex_of, pour
from pytest_sandbox_runtime.images.documents import Document, read_json
from pytest_sandbox_runtime.images.layout import is_image
from pytest_sandbox_runtime.images.limits import RAISE_BYTES, Limits
from pytest_sandbox_runtime.images.manifest import (
    OCI_LAYER,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    parse_manifest,
)
from pytest_sandbox_runtime.images.packed import unpacked
from pytest_sandbox_runtime.images.places import explained
from pytest_sandbox_runtime.images.platforms import Platform
from pytest_sandbox_runtime.images.pruning import collect
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.roots import check_root, opened
from pytest_sandbox_runtime.images.sources import Directory, Source, Tar, read_small
from pytest_sandbox_runtime.images.stack import EMPTY, Stack
from pytest_sandbox_runtime.specs.epoch import CREATED

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.leases import Lease
    from pytest_sandbox_runtime.images.store import Store

    Loaded = list[tuple[Reference | None, Descriptor]]

_KINDS = "what is loaded: an OCI archive or layout, a Docker archive, or the tar of a root file system"
_DEPTH = 4
_LIMITS = Limits()


def load(store: Store, path: str, *, platform: Platform | None = None, limits: Limits = _LIMITS) -> Loaded:
    """Store the images in the archive or the layout's directory ``path`` under the names that they have in it.

    Where one is for several platforms, that for ``platform`` is taken, None for this machine's. Layers are unpacked
    and so checked. ``limits`` is how much may come out of each file. Raises ImageError, and then nothing is loaded.
    """
    with explained(store.path):
        lease = store.leases.take()
    try:
        with lease:
            loaded = read_images(store, path, lease, platform=platform, limits=limits)
            for reference, descriptor in loaded:
                if reference is None:
                    store.images.put(descriptor)
                else:
                    store.images.tag(reference, descriptor, lease)
    except SandboxError:
        collect(store)  # what was stored before the error
        raise
    return loaded


def read_images(
    store: Store, path: str, lease: Lease, *, platform: Platform | None = None, limits: Limits = _LIMITS
) -> Loaded:
    """Store the images in ``path`` for as long as ``lease``, without naming them; as ``load`` otherwise."""
    reading = _Reading(store, path, lease, platform, limits)
    try:
        return reading.images()
    except SandboxError as error:
        if not isinstance(error, ImageError) or path in error.message:
            raise
        raise ImageError(f"{path}: {error.message}", hint=error.hint) from error


@dataclass(frozen=True)
class _Reading:
    store: Store
    path: str
    lease: Lease
    platform: Platform | None
    limits: Limits

    def images(self) -> Loaded:
        if os.path.isdir(self.path):
            source = Directory(self.path)
            if not source.has("index.json"):
                raise ImageError(f"{self.path} is no OCI image layout: it has no index.json", hint=_KINDS)
            return self._from_layout(source)
        with opened(self.path) as fd:
            return self._from_file(fd)

    def _from_file(self, fd: int) -> Loaded:
        packing = sniff(os.pread(fd, 16, 0))
        with open(fd, "rb", buffering=0, closefd=False) as file, self.store.images.begin(self.lease) as whole:
            if packing != NONE:
                with unpacked(file, self.path, self.limits) as data:
                    pour(data, whole.write, limit=self.limits.max_bytes, what=self.path)
            tar = Tar(self.path, fd if packing == NONE else whole.fileno())
            if tar.is_image:
                return self._from_layout(tar) if tar.has("index.json") else self._from_docker(tar)
            if packing == NONE:
                pour(file, whole.write, limit=self.limits.max_bytes, what=self.path, hint=RAISE_BYTES)
            layer = Descriptor(OCI_LAYER, *whole.commit())
        return [(None, self._from_root(layer))]

    # A root file system

    def _from_root(self, layer: Descriptor) -> Descriptor:
        check_root(self._unpack(layer, layer.digest, EMPTY).roots[0], self.path)
        history = History(created=CREATED, created_by="pytest-sandbox load", comment="a root file system")
        config = ImageConfig(
            platform=self.platform or Platform.host(), created=CREATED, diff_ids=(layer.digest,), history=(history,)
        )
        return self.store.images.add_image(config.to_bytes(), (layer,), self.lease)

    def _unpack(self, layer: Descriptor, diff_id: str, below: Stack) -> Stack:
        with explained(self.store.path):
            return self.store.layers.unpack(
                self.store.images, layer, diff_id, self.lease, below=below, limits=self.limits
            )

    # An OCI image layout

    def _from_layout(self, source: Source) -> Loaded:
        index = parse_manifest(read_small(source, "index.json"), what="its index.json")
        if not isinstance(index, Index):
            raise ImageError("its index.json is no index")
        found = [one for one in index.manifests if is_image(one)]
        if not found:
            raise ImageError("it holds no image", hint=_KINDS)
        return [(_name_of(one), self._from_blobs(source, one.bare())) for one in found]

    def _from_blobs(self, source: Source, descriptor: Descriptor) -> Descriptor:
        for _ in range(_DEPTH):
            self._copy(source, descriptor)
            data = self.store.images.read(descriptor)
            read = parse_manifest(data, descriptor.media_type, what=f"the manifest {descriptor.digest}")
            if isinstance(read, Manifest):
                self._copy_parts(source, read)
                return descriptor
            descriptor = read.choose(self.platform).bare()
        raise ImageError(f"its manifests lie in more than {_DEPTH} indexes")

    def _copy_parts(self, source: Source, manifest: Manifest) -> None:
        for part in (manifest.config, *manifest.layers):
            self._copy(source, part)
        stack = EMPTY
        for layer, diff_id in self.store.images.layers_of(manifest):
            stack = self._unpack(layer, diff_id, stack)

    def _copy(self, source: Source, descriptor: Descriptor) -> None:
        images = self.store.images
        if images.has(descriptor.digest, descriptor.size, self.lease):
            return
        with source.open(f"blobs/sha256/{hex_of(descriptor.digest)}") as blob:
            images.add(blob, self.lease, digest=descriptor.digest, size=descriptor.size, limit=self.limits.max_bytes)

    # A Docker archive

    def _from_docker(self, source: Source) -> Loaded:
        what = "its manifest.json"
        entries = read_json(read_small(source, "manifest.json"), what)
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise ImageError(f"{what} is no array of objects")
        loaded: Loaded = []
        for number, fields in enumerate(entries):
            entry = Document(fields, f"{what}: [{number}]")
            descriptor = self._from_entry(source, entry)
            names: tuple[str | None, ...] = entry.texts("RepoTags") or (None,)
            loaded += [(Reference.parse(name) if name else None, descriptor) for name in names]
        if not loaded:
            raise ImageError("it holds no image", hint=_KINDS)
        return loaded

    def _from_entry(self, source: Source, entry: Document) -> Descriptor:
        data = read_small(source, entry.text("Config"))
        config = ImageConfig.from_bytes(data, f"its config {entry.text('Config')}")
        names = entry.texts("Layers")
        if len(names) != len(config.diff_ids):
            raise entry.error(f"has {len(names)} layers, and its config {len(config.diff_ids)}")
        layers = []
        stack = EMPTY
        for name, diff_id in zip(names, config.diff_ids, strict=True):
            layers.append(self._add_layer(source, name, diff_id))
            stack = self._unpack(layers[-1], diff_id, stack)
        return self.store.images.add_image(data, layers, self.lease)

    def _add_layer(self, source: Source, name: str, diff_id: str) -> Descriptor:
        images = self.store.images
        size = images.size(diff_id) if images.has(diff_id, None, self.lease) else None
        if size is None:
            with source.open(name) as file, unpacked(file, f"its {name}", self.limits) as data:
                _, size = images.add(data, self.lease, digest=diff_id, limit=self.limits.max_bytes)
        return Descriptor(OCI_LAYER, diff_id, size)


def _name_of(descriptor: Descriptor) -> Reference | None:
    """Return the name of an image in a layout; a word alone is a tag without a repository, as skopeo writes it."""
    name = descriptor.name
    if name is None or not set(name).intersection("/:"):
        return None
    with contextlib.suppress(ImageError):
        return Reference.parse(name)
    return None
