"""PYTEST_DONT_REWRITE. Layers that are stacked, and what is known of the image that they are so far."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.images.manifest import History, ImageConfig
from pytest_sandbox_runtime.images.platforms import Platform
from pytest_sandbox_runtime.images.stack import EMPTY, Stack
from pytest_sandbox_runtime.specs.epoch import CREATED

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.images.store import Store


@dataclass(frozen=True, kw_only=True)
class Chain:
    """``layers`` and their ``diff_ids``, the lowest first, and the ``stack`` that they are when unpacked.

    A directory that is a root file system is a stack without layers.
    """

    layers: tuple[Descriptor, ...] = ()
    diff_ids: tuple[str, ...] = ()
    stack: Stack = EMPTY
    config: dict[str, Any] = field(default_factory=dict)
    history: tuple[History, ...] = ()
    author: str = ""
    platform: Platform = field(default_factory=Platform.host)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory of the host, and no image."""
        return bool(self.stack.roots) and not self.layers

    def with_layer(self, layer: Descriptor, stack: Stack, created_by: str, config: dict[str, Any]) -> Chain:
        """Copy this chain with one more layer, which is not packed."""
        return replace(
            self,
            layers=(*self.layers, layer),
            diff_ids=(*self.diff_ids, layer.digest),
            stack=stack,
            config=config,
            history=(*self.history, History(CREATED, created_by)),
        )

    def with_config(self, config: dict[str, Any], created_by: str) -> Chain:
        """Copy this chain with another configuration."""
        step = History(CREATED, created_by, empty_layer=True)
        return replace(self, config=config, history=(*self.history, step))

    def write(self, store: Store) -> Descriptor:
        """Store the image's config and manifest, and return what points to the manifest."""
        config = ImageConfig(
            platform=self.platform,
            created=CREATED,
            author=self.author,
            config_json=json.dumps(self.config, sort_keys=True),
            diff_ids=self.diff_ids,
            history=self.history,
        )
        descriptor = store.add_image(config, self.layers)
        store.images.put(descriptor)
        return descriptor
