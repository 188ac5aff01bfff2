"""PYTEST_DONT_REWRITE. Layers that machines share by a registry: each an image of its own, tagged by its key."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError, RegistryAuthError, RegistryUnreachableError
from pytest_sandbox_runtime.images.manifest import OCI_LAYER, ImageConfig, Manifest, parse_manifest
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.registry.blobs import Fetching
from pytest_sandbox_runtime.images.registry.push import push
from pytest_sandbox_runtime.specs.epoch import CREATED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_sandbox_runtime.images.building.telling import Telling
    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.images.registry.client import Registries
    from pytest_sandbox_runtime.images.store import Store

_LABEL = "pytest-sandbox.layer-key"


class SharedLayers:
    """The layers in the repositories ``sources``; those that are used here go to the repository ``target``."""

    def __init__(
        self, store: Store, registries: Registries, sources: Sequence[str], target: str | None, telling: Telling
    ) -> None:
        self._store = store
        self._registries = registries
        self._sources = [Reference.parse(source) for source in sources]
        self._target = None if target is None else Reference.parse(target)
        self._telling = telling
        self._offered: set[str] = set()

    def find(self, key: str, name: str) -> Descriptor | None:
        """Return the layer of ``key``, fetched, from the first source that has it whole; ``name`` is for who watches.

        A source that does not answer is told, and left alone from then on.
        """
        for source in list(self._sources):
            try:
                found = self._fetched(source, key, name)
            except ImageError as error:
                self._tell(f"{name}: not from {source.familiar}: {error.message}")
                if isinstance(error, (RegistryUnreachableError, RegistryAuthError)) and source in self._sources:
                    self._sources.remove(source)
            else:
                if found is not None:
                    return found
        return None

    def _fetched(self, source: Reference, key: str, name: str) -> Descriptor | None:
        repository = self._registries.places(source)[-1]
        digest = repository.digest_of(_tag(key))
        if digest is None:
            return None
        with self._telling(f"{name}: from {source.familiar}"):
            top, data = repository.manifest(digest)
            manifest = parse_manifest(data, top.media_type or None, what=f"the manifest {digest} of {repository}")
            if not isinstance(manifest, Manifest) or [one.media_type for one in manifest.layers] != [OCI_LAYER]:
                raise ImageError(f"{digest} is no layer of a build")
            fetching = Fetching(repository, self._store.images, self._store.lease)
            fetching.fetch(manifest.config)
            config = self._store.images.config_of(manifest)
            (layer,) = manifest.layers
            if (config.config.get("Labels") or {}).get(_LABEL) != key or config.diff_ids != (layer.digest,):
                raise ImageError(f"{digest} is not the layer that its tag says")
            fetching.fetch(layer)
        return layer

    def offer(self, key: str, layer: Descriptor) -> None:
        """Send the layer to the target, if that lacks it; raises RegistryError."""
        if self._target is None or key in self._offered:
            return
        self._offered.add(key)
        images = self._store.images
        is_there = self._registries.place(self._target).digest_of(_tag(key)) is not None
        if is_there or not images.has(layer.digest, layer.size, self._store.lease):
            return
        labels = json.dumps({"Labels": {_LABEL: key}})
        config = ImageConfig(created=CREATED, config_json=labels, diff_ids=(layer.digest,))
        push(images, self._registries, self._store.add_image(config, (layer,)), replace(self._target, tag=_tag(key)))

    def _tell(self, line: str) -> None:
        with self._telling(line):
            pass


def _tag(key: str) -> str:
    return f"layer-{key}"
