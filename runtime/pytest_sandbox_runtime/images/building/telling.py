"""PYTEST_DONT_REWRITE. A layer in a few words, for the image's history and whoever watches: nothing of this machine."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.specs import Copy, Pip, Run
from pytest_sandbox_runtime.specs.spelling import spelled_layer

if TYPE_CHECKING:
    from pytest_sandbox_runtime.specs import Layer


def told(layer: Layer) -> str:
    """Return the call that adds ``layer``, without paths, secrets and proxies of the host."""
    if isinstance(layer, Copy):
        words = [*layer.sources, *(name for name, _ in layer.inline), layer.target]
        return f"copy({', '.join(map(repr, words))})"
    if isinstance(layer, Pip) and layer.requirements is not None:
        return f"pip(requirements={os.path.basename(layer.requirements)!r})"
    if isinstance(layer, Run):
        layer = replace(layer, env=(), mounts=())
    return spelled_layer(layer)


def shortened(text: str, width: int) -> str:
    """Return as much of ``text`` as ``width`` letters can say."""
    return text if len(text) <= width else f"{text[: width - 4]} ..."
