"""PYTEST_DONT_REWRITE. Layers of images: an overlay's upper directory to a tar, and a tar to a lower directory."""

from pytest_sandbox_runtime.images.attributes import Identities
from pytest_sandbox_runtime.images.layer.apply import AppliedLayer, apply_layer
from pytest_sandbox_runtime.images.layer.write import LayerDigest, write_layer

__all__ = ["AppliedLayer", "Identities", "LayerDigest", "apply_layer", "write_layer"]
