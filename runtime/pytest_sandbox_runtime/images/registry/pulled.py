"""PYTEST_DONT_REWRITE. What pulls have led to: for which platform a tag, or the digest of many images, is which image.

It is known without asking, and so without importing what asks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.platforms import Platform, best

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.images.reference import Reference
    from pytest_sandbox_runtime.images.store import Store


def name_of(reference: Reference, descriptor: Descriptor) -> Reference:
    """Return how an image is called that was had by digest, or is for another machine than its tag shall be for."""
    return replace(reference, tag=None, digest=descriptor.digest)


def pulled(store: Store, name: str, platform: Platform | None) -> Descriptor | None:
    """Return the image that ``name``, a digest or a whole reference, has led to, if all of it is there."""
    record = store.recall(_key(name, platform))
    descriptor = record.descriptor if record is not None else None
    return descriptor if descriptor is not None and _is_whole(store, descriptor) else None


def is_for(store: Store, descriptor: Descriptor, platform: Platform) -> bool:
    """Whether the image in the store is for ``platform``."""
    _, manifest = store.images.manifest_of(descriptor)
    return best(platform, [store.images.config_of(manifest).platform]) is not None


def remember(store: Store, name: str, platform: Platform | None, descriptor: Descriptor) -> None:
    """Note that ``name`` led to the image, which that alone does not keep."""
    store.remember(_key(name, platform), descriptor=descriptor, weak=True)


def _key(name: str, platform: Platform | None) -> str:
    return f"pulled:{name}:{(platform or Platform.host()).normalised()}:{platform is None}"


def _is_whole(store: Store, descriptor: Descriptor) -> bool:
    images, lease = store.images, store.lease
    try:
        _, manifest = images.manifest_of(descriptor)
    except ImageError:
        return False
    return all(images.has(one.digest, one.size, lease) for one in (descriptor, manifest.config, *manifest.layers))
