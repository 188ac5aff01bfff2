"""PYTEST_DONT_REWRITE. The images of a store: an OCI image layout that skopeo and umoci read as it is.

A blob is written beside its place, checked, and renamed into it, so that what has a blob's name is whole; index.json
is replaced by rename as well. A writer that died holds no lock on what it wrote, and the next one removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import time
from typing import IO, TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.digest import digest_of, hex_of, pour
from pytest_sandbox_runtime.images.documents import MAX_DOCUMENT
from pytest_sandbox_runtime.images.ingest import CUT, PARTIAL, Ingest, locked, remove_if_dead
from pytest_sandbox_runtime.images.limits import RAISE_BYTES, Limits
from pytest_sandbox_runtime.images.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    parse_manifest,
)
from pytest_sandbox_runtime.images.places import explained
from pytest_sandbox_runtime.images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_sandbox_runtime.images.digest import Readable
    from pytest_sandbox_runtime.images.leases import Lease, Leases
    from pytest_sandbox_runtime.images.platforms import Platform

MAX_BLOB = Limits().max_bytes
MARKER = b'{"imageLayoutVersion":"1.0.0"}'
_DEPTH = 4
_SHORT = 0.05
_LOAD_AGAIN = "load, pull or build the image again"


class Layout:
    """The layout in the directory ``path``, made when first opened; the file ``index_lock`` guards its index."""

    def __init__(self, path: str, index_lock: str, leases: Leases) -> None:
        self.path = path
        self._blobs = os.path.join(path, "blobs", "sha256")
        self._index = os.path.join(path, "index.json")
        self._index_lock = index_lock
        self._leases = leases
        self._swept = False
        with explained(path):
            os.makedirs(self._blobs, mode=0o700, exist_ok=True)
            for name, content in (("index.json", Index().to_bytes()), ("oci-layout", MARKER)):
                if not os.path.exists(os.path.join(path, name)):
                    with contextlib.suppress(FileExistsError):
                        self._publish(content, os.path.join(path, name), replace=False)

    def __repr__(self) -> str:
        return f"Layout({self.path!r})"

    # Blobs

    def begin(self, lease: Lease) -> Ingest:
        """Return a blob to be written; ``lease`` holds it when it is done."""
        with explained(self.path):
            if not self._swept:
                self._swept = True
                self._remove_dead(PARTIAL)
            path, fd = self._partial()
        return Ingest(path, fd, lambda digest: self._keep(path, digest, lease))

    def resume(self, digest: str, lease: Lease, pause: Callable[[], object] = lambda: time.sleep(_SHORT)) -> Ingest:
        """Return the blob ``digest`` to be written on from where somebody's writing was cut.

        One at a time writes it: with ``pause`` that one is waited for, and it may be there in the end. What is written
        stays for the next one.
        """
        path = os.path.join(self.path, CUT + hex_of(digest))
        with explained(self.path):
            fd = locked(path, pause)
            return Ingest(path, fd, lambda digest: self._keep(path, digest, lease), is_resumed=True)

    def add(
        self,
        source: Readable,
        lease: Lease,
        *,
        digest: str | None = None,
        size: int | None = None,
        limit: int = MAX_BLOB,
    ) -> tuple[str, int]:
        """Store all of ``source``, checked while it is written; returns its digest and size.

        Raises ImageError where it is not of ``digest`` and ``size``, or has more than ``limit`` bytes.
        """
        what = f"the blob {digest}" if digest else "a blob"
        with self.begin(lease) as blob:
            if size is not None and size <= limit:
                pour(source, blob.write, limit=size, what=what, hint=_LOAD_AGAIN)
            else:
                pour(source, blob.write, limit=limit, what=what, hint=RAISE_BYTES)
            return blob.commit(digest, size)

    def add_bytes(self, data: bytes, media_type: str, lease: Lease) -> Descriptor:
        """Store ``data``, and return what points to it."""
        digest = digest_of(data)
        if not self.has(digest, len(data), lease):
            self.add(io.BytesIO(data), lease)
        return Descriptor(media_type, digest, len(data))

    def add_image(self, config: bytes, layers: Sequence[Descriptor], lease: Lease) -> Descriptor:
        """Store the manifest of ``config`` and ``layers``, the lowest first, and return what points to it."""
        manifest = Manifest(self.add_bytes(config, OCI_CONFIG, lease), tuple(layers))
        return self.add_bytes(manifest.to_bytes(), OCI_MANIFEST, lease)

    def has(self, digest: str, size: int | None, lease: Lease) -> bool:
        """Whether the blob is there, with ``size`` where that is known; if so it stays as long as ``lease``."""
        lease.pin(digest)
        there = self.size(digest)
        return there is not None and size in (None, there)

    def open(self, descriptor: Descriptor) -> IO[bytes]:
        """Return the blob, to be read; raises ImageError where it is not there or has another size."""
        try:
            fd = os.open(self.blob_path(descriptor.digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ImageError(f"the store lacks the blob {descriptor.digest}", hint=_LOAD_AGAIN) from error
        size = os.fstat(fd).st_size
        if size != descriptor.size:
            os.close(fd)
            msg = f"the blob {descriptor.digest} in the store has {size} bytes, and should have {descriptor.size}"
            raise ImageError(msg, hint=_LOAD_AGAIN)
        return open(fd, "rb", buffering=0)

    def read(self, descriptor: Descriptor) -> bytes:
        """Return the content of a small blob, checked."""
        if descriptor.size > MAX_DOCUMENT:
            raise ImageError(
                f"the document {descriptor.digest} has {descriptor.size} bytes, and may have {MAX_DOCUMENT}"
            )
        with self.open(descriptor) as file:
            data = file.read(MAX_DOCUMENT + 1)
        if digest_of(data) != descriptor.digest:
            raise ImageError(f"the blob {descriptor.digest} in the store is damaged", hint=_LOAD_AGAIN)
        return data

    def blob_path(self, digest: str) -> str:
        """Return where the blob is, or would be."""
        return os.path.join(self._blobs, hex_of(digest))

    def size(self, digest: str) -> int | None:
        """Return the size of the blob, None where it is not there."""
        try:
            return os.stat(self.blob_path(digest)).st_size
        except FileNotFoundError:
            return None

    def delete(self, digest: str) -> None:
        """Remove the blob, if it is there; for whoever is alone in the gate."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.blob_path(digest))

    def digests(self) -> list[str]:
        """Return which blobs are there, sorted."""
        return [f"sha256:{name}" for name in sorted(os.listdir(self._blobs)) if len(name) == 64]

    # Images

    def index(self) -> Index:
        """Return all images that have a name, or lost it."""
        try:
            with open(self._index, "rb") as file:
                data = file.read()
        except FileNotFoundError as error:
            hint = "restore it, or remove the whole directory"
            raise ImageError(f"the store {self.path} has lost its index.json", hint=hint) from error
        index = parse_manifest(data, what=self._index) if data else Index()
        if not isinstance(index, Index):
            raise ImageError(f"{self._index} is no index", hint="restore it, or remove the whole directory")
        return index

    def tag(self, reference: Reference, descriptor: Descriptor, lease: Lease) -> None:
        """Give ``reference`` to the image, which must be there; who had that name loses it, and stays without one."""
        if not self.has(descriptor.digest, descriptor.size, lease):
            raise ImageError(f"the store lacks the image {descriptor.digest}", hint=_LOAD_AGAIN)
        name = reference.with_default_tag().canonical
        self.change(lambda there: _named(there, name, descriptor.bare()))

    def put(self, descriptor: Descriptor) -> None:
        """Keep the image without a name, unless it has one."""
        known = descriptor.digest
        self.change(lambda there: there if any(one.digest == known for one in there) else [*there, descriptor.bare()])

    def remove(self, reference: Reference) -> bool:
        """Take ``reference`` from its image, which is forgotten if that was its last; whether there was one."""
        name = reference.with_default_tag().canonical
        found: list[Descriptor] = []

        def without(there: list[Descriptor]) -> list[Descriptor]:
            found.extend(one for one in there if canonical_name(one) == name)
            return [one for one in there if canonical_name(one) != name]

        self.change(without)
        return bool(found)

    def resolve(self, reference: Reference) -> Descriptor | None:
        """Return the image that has ``reference``, None where none has; a digest finds it without its name as well."""
        wanted = reference.with_default_tag()
        for one in self.index().manifests:
            if wanted.digest is not None and one.digest == wanted.digest:
                return one
            if wanted.digest is None and canonical_name(one) == wanted.canonical:
                return one
        return None

    def manifest_of(self, descriptor: Descriptor, platform: Platform | None = None) -> tuple[Descriptor, Manifest]:
        """Return the manifest that ``descriptor`` leads to, for ``platform`` where there are several."""
        for _ in range(_DEPTH):
            read = parse_manifest(
                self.read(descriptor), descriptor.media_type, what=f"the manifest {descriptor.digest}"
            )
            if isinstance(read, Manifest):
                return descriptor, read
            descriptor = read.choose(platform).bare()
        raise ImageError(f"{descriptor.digest} lies in more than {_DEPTH} indexes", hint="name a manifest in it")

    def config_of(self, manifest: Manifest) -> ImageConfig:
        """Return the config of ``manifest``; raises ImageError where they do not fit together."""
        config = ImageConfig.from_bytes(self.read(manifest.config), f"the config {manifest.config.digest}")
        if len(config.diff_ids) != len(manifest.layers):
            said = f"{len(config.diff_ids)} layers, and its manifest has {len(manifest.layers)}"
            raise ImageError(f"the config {manifest.config.digest} has {said}")
        return config

    def layers_of(self, manifest: Manifest) -> list[tuple[Descriptor, str]]:
        """Return the layers, the lowest first, each with its diff id."""
        return list(zip(manifest.layers, self.config_of(manifest).diff_ids, strict=True))

    def reach(self, digest: str) -> Iterator[str]:
        """Yield the digests of all blobs that ``digest`` needs, and its own, as far as they are there."""
        yield digest
        with contextlib.suppress(ImageError):
            read = self._read_any(digest)
            if isinstance(read, Manifest):
                yield from (read.config.digest, *(layer.digest for layer in read.layers))
                return
            for one in read.manifests:
                yield from self.reach(one.digest)

    def diff_ids_of(self, digest: str) -> tuple[str, ...]:
        """Return the diff ids of the manifest ``digest``, none where it is something else or lacks its config."""
        with contextlib.suppress(ImageError):
            read = self._read_any(digest)
            if isinstance(read, Manifest):
                return self.config_of(read).diff_ids
        return ()

    def _read_any(self, digest: str) -> Index | Manifest:
        return parse_manifest(self.read(Descriptor("", digest, self.size(digest) or 0)))

    def change(self, how: Callable[[list[Descriptor]], list[Descriptor]]) -> None:
        """Replace what the index holds by what ``how`` makes of it; others wait."""
        from filelock import FileLock

        with explained(self.path), FileLock(self._index_lock):
            index = self.index()
            after = tuple(how(list(index.manifests)))
            if after != index.manifests:
                self._publish(Index(after, index.media_type, index.annotations).to_bytes(), self._index, replace=True)

    # How it is written

    def _keep(self, path: str, digest: str, lease: Lease) -> None:
        lease.pin(digest)
        os.rename(path, self.blob_path(digest))

    def _partial(self) -> tuple[str, int]:
        path = os.path.join(self.path, PARTIAL + os.urandom(16).hex())
        # In the gate nobody sees it without its lock, and takes it for a dead writer's.
        with self._leases.shared():
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
        return path, fd

    def _publish(self, content: bytes, path: str, *, replace: bool) -> None:
        partial, fd = self._partial()
        try:
            with open(fd, "wb") as file:
                file.write(content)
                file.flush()
                if replace:  # else a machine that loses power may come back with the new name and no content
                    os.fsync(fd)
                (os.replace if replace else os.link)(partial, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)

    def sweep(self) -> None:
        """Remove what dead writers left: they hold no lock any more."""
        self._remove_dead(PARTIAL, CUT)

    def _remove_dead(self, *prefixes: str) -> None:
        for name in os.listdir(self.path):
            if name.startswith(prefixes):
                with self._leases.alone(), contextlib.suppress(FileNotFoundError):
                    remove_if_dead(os.path.join(self.path, name))


def canonical_name(descriptor: Descriptor) -> str | None:
    """Return an image's name in the index, in full; as it is where another tool gave it one that is no reference."""
    if descriptor.name is None:
        return None
    try:
        return Reference.parse(descriptor.name).with_default_tag().canonical
    except ImageError:
        return descriptor.name


def _named(there: list[Descriptor], name: str, descriptor: Descriptor) -> list[Descriptor]:
    kept = [one for one in there if canonical_name(one) != name]
    kept = [one for one in kept if one.digest != descriptor.digest or one.name is not None]
    known = {one.digest for one in kept} | {descriptor.digest}
    lost = [one.bare() for one in there if canonical_name(one) == name and one.digest not in known]
    return [*kept, *lost, descriptor.named(name)]


def is_image(descriptor: Descriptor) -> bool:
    """Whether it points to a manifest or an index, of images or other things."""
    return descriptor.media_type in INDEX_TYPES + MANIFEST_TYPES
