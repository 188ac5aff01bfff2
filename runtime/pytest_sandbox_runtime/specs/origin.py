"""PYTEST_DONT_REWRITE. Where a layer was written down, for errors: no part of what it is, nor of its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_sandbox_runtime.specs.layers import Layer


def set_origin(layer: Layer, origin: str) -> None:
    """Note the ``origin`` of a layer that was just made: "Dockerfile:7: RUN"."""
    # Beside the fields, as equal layers are one, wherever they stand.
    object.__setattr__(layer, "_origin", origin)


def origin_of(layer: Layer) -> str:
    """Return where the layer was written down, "" where nobody has said."""
    return getattr(layer, "_origin", "")
