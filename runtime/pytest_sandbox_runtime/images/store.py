"""PYTEST_DONT_REWRITE. Where images, unpacked layers and what led to them are kept, for any number of runs at once.

All is addressed by content, written under another name and renamed: what has its name is whole, whenever a maker was
killed. What a store has given out stays until it is closed, or its process ends, whoever prunes.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import time
from typing import IO, TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.mapped import needs_user_namespace, worker
from pytest_sandbox_runtime.images.places import explained, open_private
from pytest_sandbox_runtime.images.roots import check_root, opened
from pytest_sandbox_runtime.images.stack import EMPTY, Stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from pytest_sandbox_runtime.images.digest import Readable
    from pytest_sandbox_runtime.images.layer import AppliedLayer
    from pytest_sandbox_runtime.images.layers import Layers
    from pytest_sandbox_runtime.images.layout import Layout
    from pytest_sandbox_runtime.images.leases import Lease, Leases
    from pytest_sandbox_runtime.images.manifest import Descriptor, ImageConfig, Manifest
    from pytest_sandbox_runtime.images.records import Record, Records
    from pytest_sandbox_runtime.specs import Image

_CHUNK = 1 << 20
# The coarsest clock of file times is a jiffy of 10 ms: a file can change twice within one and look the same.
_SETTLED_NS = 20_000_000


class Store:
    """The directory of images and layers; private to its user, made when first opened.

    Raises SandboxError where it cannot be made or belongs to somebody else.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._lease: Lease | None = None
        self._lock = threading.Lock()
        with explained(self.path):
            open_private(self.path, "layers", "builds", "locks", "locks/leases")

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all that this store has given out: it may be pruned from now on. Again: nothing."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.close()

    # Its parts, which are imported when first used

    @functools.cached_property
    def images(self) -> Layout:
        """The images: an OCI image layout."""
        from pytest_sandbox_runtime.images.layout import Layout

        return Layout(self._below("images"), self._below("locks", "index.lock"), self.leases)

    @functools.cached_property
    def layers(self) -> Layers:
        """The unpacked layers."""
        from pytest_sandbox_runtime.images.layers import Layers

        return Layers(self._below("layers"), self._below("locks"))

    @functools.cached_property
    def records(self) -> Records:
        """What builds led to."""
        from pytest_sandbox_runtime.images.records import Records

        return Records(self._below("builds"))

    @functools.cached_property
    def leases(self) -> Leases:
        """What is in use, here and elsewhere."""
        from pytest_sandbox_runtime.images.leases import Leases

        return Leases(self._below("locks", "leases"))

    @property
    def lease(self) -> Lease:
        """The lease of what this store gives out; for work that ends sooner, take one of ``leases``."""
        with self._lock, explained(self.path):
            if self._lease is None:
                self._lease = self.leases.take()
            return self._lease

    def _below(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    def holds(self, path: str) -> bool:
        """Whether ``path`` is one of the store's own, which never changes."""
        return path.startswith(self._below("layers", ""))

    # Layers

    def find_layer(self, diff_id: str, below: Stack = EMPTY) -> Stack | None:
        """Return ``below`` with the layer over it, None where that is not unpacked."""
        return self.layers.find(diff_id, below, self.lease)

    def unpack_layer(self, descriptor: Descriptor, diff_id: str, below: Stack = EMPTY) -> Stack:
        """Return ``below`` with the layer over it, unpacked from its blob if it is not there yet; raises ImageError."""
        with explained(self.path):
            return self.layers.unpack(self.images, descriptor, diff_id, self.lease, below=below)

    def add_layer_tree(self, tree: str, diff_id: str, below: Stack = EMPTY) -> Stack:
        """Make the directory ``tree``, on the store's file system, the layer over ``below``; return both."""
        with explained(self.path):
            return self.layers.adopt(tree, diff_id, self.lease, below=below)

    def add_layer_tar(self, stream: Readable) -> Descriptor:
        """Store a layer's tar, which is not packed: so the digest of what is returned is its diff id, too."""
        from pytest_sandbox_runtime.images.manifest import OCI_LAYER, Descriptor

        with explained(self.path):
            return Descriptor(OCI_LAYER, *self.images.add(stream, self.lease))

    def write_layer(self, upper: str, below: Stack = EMPTY, without: tuple[str, ...] = ()) -> Descriptor:
        """Store what changed in ``upper``, an overlay's upper directory over ``below``, as a layer's tar.

        The paths ``without``, relative to the root, are passed over.
        """
        from pytest_sandbox_runtime.images.manifest import OCI_LAYER, Descriptor

        with explained(self.path), self.images.begin(self.lease) as blob:
            worker().write(_write_layer, blob.write, upper, below.roots, without)
            return Descriptor(OCI_LAYER, *blob.commit())

    def add_image(self, config: ImageConfig, layers: Sequence[Descriptor]) -> Descriptor:
        """Store an image of ``config`` and ``layers``, the lowest first, and return what points to its manifest.

        Until it is tagged, ``images.put`` or a record keeps it, or the lease.
        """
        with explained(self.path):
            return self.images.add_image(config.to_bytes(), layers, self.lease)

    def stack_of(self, manifest: Manifest) -> Stack:
        """Return the image's layers, unpacked where they are not yet."""
        self.lease.pin(manifest.config.digest, *(layer.digest for layer in manifest.layers))
        stack = EMPTY
        for descriptor, diff_id in self.images.layers_of(manifest):
            stack = self.unpack_layer(descriptor, diff_id, stack)
        return stack

    def roots_of(self, manifest: Manifest) -> tuple[str, ...]:
        """Return the directories of the image's layers, the topmost first, unpacked where they are not yet."""
        return self.stack_of(manifest).roots

    # What is remembered

    def recall(self, key: str) -> Record | None:
        """Return what ``key`` led to, if that is still there; then it stays."""
        record = self.records.recall(key)
        if record is None or not record.digests:
            return record
        self.lease.pin(*record.digests)
        blob = record.descriptor
        is_there = blob is not None and self.images.has(blob.digest, blob.size, self.lease)
        return record if is_there or self.layers.has_any(record.layers) else None

    def remember(
        self,
        key: str,
        *,
        diff_id: str | None = None,
        below: str | None = None,
        descriptor: Descriptor | None = None,
        **notes: Any,
    ) -> Record:
        """Note that ``key`` led to a layer over the chain id ``below``, its blob, or both, and more in JSON."""
        from pytest_sandbox_runtime.images.documents import canonical
        from pytest_sandbox_runtime.images.records import Record

        record = Record(diff_id, descriptor, canonical(notes).decode(), below)
        with explained(self.path):
            self.records.remember(key, record)
        return record

    # Archives

    def root_of(self, image: Image) -> str:
        """Return the directory that holds the root file system of ``image``, which is an archive: unpacked once.

        A directory is returned as it is. Raises ImageError where there is no root file system in ``image``.
        """
        if image.path is None:
            raise ImageError(f"{image} is no archive", hint="Image.archive(path) is")
        if os.path.isdir(image.path):
            check_root(image.path, image.path)
            return image.path
        with explained(self.path), opened(image.path) as fd:
            return self._unpacked_once(image.path, fd)

    def image_in(self, path: str) -> Descriptor:
        """Return the one image in the archive ``path``, of any kind, which is read again only if it changed."""
        from pytest_sandbox_runtime.images.archive import read_images

        if os.path.isdir(path):
            return _only(path, read_images(self, path, self.lease))
        key = f"image:{os.path.abspath(path)}"
        with opened(path) as fd:
            identity = _identity(fd)
            record = self.recall(key)
            if record and record.descriptor and record.notes.get("identity") == identity:
                return record.descriptor
            began = time.time_ns()
            descriptor = _only(path, read_images(self, path, self.lease))
            _check_unchanged(path, fd, identity)
            if _is_settled(fd, began):
                self.remember(key, descriptor=descriptor, identity=identity)
        return descriptor

    def _unpacked_once(self, archive: str, fd: int) -> str:
        key, identity = f"archive:{archive}", _identity(fd)
        record = self.records.recall(key)
        if record and record.diff_id and record.notes.get("identity") == identity:
            found = self.find_layer(record.diff_id)
            if found is not None:
                return found.roots[0]
        began = time.time_ns()
        unpacked = self._unpacked(archive, fd, identity)
        if _is_settled(fd, began):
            self.remember(key, diff_id=unpacked.chain_id, identity=identity)
        return unpacked.roots[0]

    def _unpacked(self, archive: str, fd: int, identity: list[int]) -> Stack:
        from pytest_sandbox_runtime.images.compressions import NONE, sniff

        digest = _sha256(fd)
        _check_unchanged(archive, fd, identity)
        is_plain = sniff(os.pread(fd, 16, 0)) == NONE

        def fill(partial: str) -> AppliedLayer:
            done = _unpack(archive, fd, partial)
            _check_unchanged(archive, fd, identity)
            return done

        return self.layers.make(digest, fill, self.lease, diff_id=f"sha256:{digest}" if is_plain else None)


def _write_layer(stream: IO[bytes], upper: str, lowers: tuple[str, ...], without: tuple[str, ...]) -> None:
    from pytest_sandbox_runtime.images.layer import write_layer

    write_layer(upper, stream, lowers=lowers, user_namespace=needs_user_namespace(), without=without)


def _unpack(archive: str, fd: int, partial: str) -> AppliedLayer:
    from pytest_sandbox_runtime.images.layers import apply

    os.lseek(fd, 0, os.SEEK_SET)
    # The very file that has the digest, whatever has its name by now.
    with open(fd, "rb", buffering=0, closefd=False) as stream:
        done = apply(stream, partial, EMPTY, archive)
    check_root(partial, archive)
    return done


def _only(path: str, loaded: list[Any]) -> Descriptor:
    if len({descriptor.digest for _, descriptor in loaded}) != 1:
        names = ", ".join(str(reference) for reference, _ in loaded)
        hint = "load it (pytest-sandbox load), and name the image that is meant"
        raise ImageError(f"{path} holds several images, and one is needed: {names}", hint=hint)
    descriptor: Descriptor = loaded[0][1]
    return descriptor


def _identity(fd: int) -> list[int]:
    status = os.fstat(fd)
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _is_settled(fd: int, began: int) -> bool:
    return began - max(os.fstat(fd).st_ctime_ns, os.fstat(fd).st_mtime_ns) > _SETTLED_NS


def _sha256(fd: int) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with open(fd, "rb", buffering=0, closefd=False) as stream:
        while size := stream.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def _check_unchanged(archive: str, fd: int, identity: list[int]) -> None:
    if _identity(fd) != identity:
        raise ImageError(f"{archive} was changed while it was read", hint="run again when it is complete")
