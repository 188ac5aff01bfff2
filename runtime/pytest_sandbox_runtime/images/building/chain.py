"""PYTEST_DONT_REWRITE. Layers that are stacked, and what is known of the image that they are so far."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.images.manifest import OCI_CONFIG, OCI_MANIFEST, History, ImageConfig, Manifest
from pytest_sandbox_runtime.images.platforms import Platform

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.layout import Layout
    from pytest_sandbox_runtime.images.leases import Lease
    from pytest_sandbox_runtime.images.manifest import Descriptor

# What images say of when they were made: always the same.
CREATED = "2024-01-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Chain:
    """``layers`` and their ``diff_ids`` the lowest first; ``roots``, their unpacked directories, the topmost first."""

    layers: tuple[Descriptor, ...] = ()
    diff_ids: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    history: tuple[History, ...] = ()
    platform: Platform = field(default_factory=Platform.host)

    @property
    def chain_id(self) -> str:
        """What names the files of all the layers together: the image-spec's ChainID; "" where there is none."""
        chain = ""
        for diff_id in self.diff_ids:
            chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}" if chain else diff_id
        return chain

    def with_layer(self, layer: Descriptor, diff_id: str, root: str, created_by: str, config: dict[str, Any]) -> Chain:
        """Copy this chain with one more layer."""
        return replace(
            self,
            layers=(*self.layers, layer),
            diff_ids=(*self.diff_ids, diff_id),
            roots=tuple(dict.fromkeys((root, *self.roots))),
            config=config,
            history=(*self.history, History(CREATED, created_by)),
        )

    def with_config(self, config: dict[str, Any], created_by: str) -> Chain:
        """Copy this chain with another configuration."""
        step = History(CREATED, created_by, empty_layer=True)
        return replace(self, config=config, history=(*self.history, step))

    def write(self, layout: Layout, lease: Lease) -> Descriptor:
        """Store the image's config and manifest, and return what points to the manifest."""
        config = ImageConfig(
            platform=self.platform,
            created=CREATED,
            config_json=json.dumps(self.config, sort_keys=True),
            diff_ids=self.diff_ids,
            history=self.history,
        )
        pointer = layout.add_bytes(config.to_bytes(), OCI_CONFIG, lease)
        manifest = Manifest(config=pointer, layers=self.layers)
        return layout.add_bytes(manifest.to_bytes(), OCI_MANIFEST, lease)
