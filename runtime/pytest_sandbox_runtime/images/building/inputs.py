"""PYTEST_DONT_REWRITE. What a step reads besides the layers below it, which is looked at before it may be made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.images.building.selecting import digest_of, select
from pytest_sandbox_runtime.lowers import MergedTree
from pytest_sandbox_runtime.specs import BindMount, Copy, Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_sandbox_runtime.images.building.chain import Chain
    from pytest_sandbox_runtime.images.building.selecting import Source
    from pytest_sandbox_runtime.images.config import Step
    from pytest_sandbox_runtime.specs import Layer

    ChainOf = Callable[[Image], Chain]


@dataclass(frozen=True)
class Inputs:
    """What a Copy takes, and a digest of all that a step reads."""

    sources: tuple[Source, ...]
    digest: str

    @classmethod
    def of(cls, step: Step, chain_of: ChainOf) -> Inputs:
        """Look at what ``step`` reads; raises ImageError where something is missing."""
        copies = list(_copies(step))
        found = [_select(copy, chain_of) for copy in copies]
        said = [
            chain_of(copy.from_).stack.chain_id or "" if copy.from_ is not None else digest_of(sources)
            for copy, sources in zip(copies, found, strict=True)
        ]
        digest = hashlib.sha256("\n".join(said).encode()).hexdigest() if said else ""
        return cls(found[0] if isinstance(step.layer, Copy) else (), digest)


def _select(copy: Copy, chain_of: ChainOf) -> tuple[Source, ...]:
    if copy.from_ is not None:
        return select(copy, MergedTree(chain_of(copy.from_).stack.roots), is_image=True)
    if copy.context is None:
        return ()
    return select(copy, MergedTree((copy.context.directory,)), is_image=False)


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
