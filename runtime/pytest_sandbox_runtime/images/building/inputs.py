"""PYTEST_DONT_REWRITE. What a step reads besides the layers below it, which is looked at before it may be made."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.specs import BindMount, Copy, Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_sandbox_runtime.images.building.chain import Chain
    from pytest_sandbox_runtime.images.config import Step
    from pytest_sandbox_runtime.specs import Layer

    ChainOf = Callable[[Image], Chain]


def digest_of_inputs(step: Step, chain_of: ChainOf) -> str:
    """Return a digest of all that ``step`` reads of contexts and other images; raises ImageError where it is missing.

    Of another image it is that of all its files, which need not be read for it.
    """
    said = []
    for copy in _copies(step):
        if copy.from_ is not None:
            said.append(chain_of(copy.from_).stack.chain_id or "")
        elif copy.context is not None:
            from pytest_sandbox_runtime.images.building.selecting import digest_of, select
            from pytest_sandbox_runtime.lowers import MergedTree

            said.append(digest_of(select(copy, MergedTree((copy.context.directory,)), is_image=False)))
    return hashlib.sha256("\n".join(said).encode()).hexdigest() if said else ""


def _copies(step: Step) -> Iterator[Copy]:
    """Yield what the step reads, as if it were copied."""
    if isinstance(step.layer, Copy):
        yield step.layer
    for mount in step.run.mounts if step.run is not None else ():
        if isinstance(mount, BindMount):
            yield Copy(sources=(mount.source or "/",), target="/", context=mount.context, from_=mount.from_)


def others(layers: Iterable[Layer]) -> list[Image]:
    """Return the images that ``layers`` take files from, each once."""
    found = [layer.from_ for layer in layers if isinstance(layer, Copy)]
    for layer in layers:
        found += [getattr(mount, "from_", None) for mount in getattr(layer, "mounts", ())]
    return list(dict.fromkeys(image for image in found if image is not None))
