"""PYTEST_DONT_REWRITE. Images that come from registries into the store; a pull that was killed goes on where it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError, RegistryError
from pytest_sandbox_runtime.images.limits import Limits
from pytest_sandbox_runtime.images.manifest import Manifest, parse_manifest
from pytest_sandbox_runtime.images.reference import DEFAULT_TAG
from pytest_sandbox_runtime.images.registry.blobs import Fetching
from pytest_sandbox_runtime.images.registry.pulled import pulled, remember
from pytest_sandbox_runtime.images.stack import EMPTY

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.leases import Lease
    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.images.platforms import Platform
    from pytest_sandbox_runtime.images.reference import Reference
    from pytest_sandbox_runtime.images.registry.client import Registries
    from pytest_sandbox_runtime.images.registry.meter import Meter
    from pytest_sandbox_runtime.images.registry.repository import Repository
    from pytest_sandbox_runtime.images.store import Store

_AT_ONCE = 3
_DEPTH = 4
_LIMITS = Limits()


def pull(
    store: Store,
    registries: Registries,
    reference: Reference,
    platform: Platform | None = None,
    meter: Meter | None = None,
) -> Descriptor:
    """Return the image that ``reference`` stands for now, for ``platform``, fetched where it is not there.

    It stays as long as the store's lease; it has no name, yet. One by digest that is there is not asked for. Raises
    ImageError.
    """
    if reference.digest is not None:
        found = pulled(store, reference.digest, platform)
        if found is not None:
            return found
    said: list[str] = []
    *mirrors, registry = registries.places(reference)
    for repository in mirrors:
        try:
            return _Pulling(store, repository, platform, meter).image(reference)
        except RegistryError as error:
            said.append(f"\n  and its mirror: {error.message}")
    try:
        return _Pulling(store, registry, platform, meter).image(reference)
    except RegistryError as error:
        error.message += "".join(said)
        raise


class _Pulling:
    """One pull from one repository."""

    def __init__(self, store: Store, repository: Repository, platform: Platform | None, meter: Meter | None) -> None:
        self._store = store
        self._lease: Lease = store.lease
        self._repository = repository
        self._platform = platform
        self._meter = meter
        self._fetching = Fetching(repository, store.images, self._lease, meter)

    def image(self, reference: Reference) -> Descriptor:
        tag = reference.tag or DEFAULT_TAG
        digest = reference.digest
        if digest is None and (now := self._repository.digest_of(tag)) is not None:
            found = pulled(self._store, now, self._platform)
            if found is not None:
                return found
        top, data = self._repository.manifest(digest or tag)
        descriptor, manifest = self._manifest(top, data)
        self._layers(manifest)
        for name in (top.digest, reference.canonical):
            remember(self._store, name, self._platform, descriptor)
        return descriptor

    def _manifest(self, descriptor: Descriptor, data: bytes) -> tuple[Descriptor, Manifest]:
        """Return the manifest for the platform that is in ``data``, or in an index that leads there, stored."""
        what = f"the manifest {descriptor.digest} of {self._repository}"
        for _ in range(_DEPTH):
            read = parse_manifest(data, descriptor.media_type or None, what=what)
            if isinstance(read, Manifest):
                return self._store.images.add_bytes(data, read.media_type, self._lease), read
            chosen = read.choose(self._platform)
            what = f"the manifest {chosen.digest} of {self._repository}"
            _, data = self._repository.manifest(chosen.digest)
            if len(data) != chosen.size:
                raise RegistryError(f"{what} has {len(data)} bytes, and its index says {chosen.size}")
            descriptor = chosen.bare()
        raise ImageError(f"{self._repository} has its manifests in more than {_DEPTH} indexes")

    def _layers(self, manifest: Manifest) -> None:
        """Fetch the layers, the lowest first, and unpack each while others come."""
        images, layers = self._store.images, self._store.layers
        if self._meter is not None:
            self._meter.expect((manifest.config, *manifest.layers))
        with ThreadPoolExecutor(_AT_ONCE, "pull") as pool:
            try:
                coming = {one: pool.submit(self._fetching.fetch, one) for one in (manifest.config, *manifest.layers)}
                coming[manifest.config].result()
                stack = EMPTY
                for layer, diff_id in images.layers_of(manifest):
                    coming[layer].result()
                    stack = layers.unpack(images, layer, diff_id, self._lease, below=stack, limits=_LIMITS)
            except BaseException:
                self._fetching.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
