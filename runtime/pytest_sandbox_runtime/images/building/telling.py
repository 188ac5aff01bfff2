"""PYTEST_DONT_REWRITE. A layer in a few words, for the image's history and whoever watches: nothing of this machine."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pytest_sandbox_runtime.engine import EngineSettings
    from pytest_sandbox_runtime.specs import Layer

    # Told the bytes that are there, and how many there are to be.
    Amount = Callable[[int, int], None]
    Telling = Callable[[str], AbstractContextManager[Amount]]


def teller(settings: EngineSettings) -> Telling:
    """Return what tells whoever watches a line when its work begins, and the line again when it has ended.

    What is called with amounts in between tells these.
    """

    @contextlib.contextmanager
    def telling(line: str) -> Iterator[Amount]:
        settings.report(line)
        began = time.monotonic()
        try:
            yield partial(settings.amount, line)
        finally:
            settings.done(line, time.monotonic() - began)

    return telling


def told(layer: Layer) -> str:
    """Return the call that adds ``layer``, without paths, secrets and proxies of the host."""
    from pytest_sandbox_runtime.specs import Copy, Pip, Run
    from pytest_sandbox_runtime.specs.spelling import spelled_layer

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
