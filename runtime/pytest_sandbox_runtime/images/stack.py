"""PYTEST_DONT_REWRITE. Layers one over the other, by the chain ids of the OCI image-spec, and what layers are called.

A layer that stands alone is the same whatever is below it, and is called by its diff id. Whiteouts, and directories
that its tar only implies, are written by what is below: such a layer is called by its chain id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_sandbox_runtime.images.digest import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterable


class Stack(NamedTuple):
    """Unpacked layers: their chain id, None without any, and their directories, the topmost first."""

    chain_id: str | None = None
    roots: tuple[str, ...] = ()

    def with_layer(self, diff_id: str, root: str) -> Stack:
        """Return this with a layer more; one that was there before is kept at its higher place alone.

        overlayfs(5) takes no directory twice, and nothing is seen of the lower one.
        """
        return Stack(chain_id(self.chain_id, diff_id), (root, *(one for one in self.roots if one != root)))


EMPTY = Stack()


def chain_id(below: str | None, diff_id: str) -> str:
    """Return the chain id of a layer over those of the chain id ``below``, None for none."""
    return digest_of(f"{below} {diff_id}".encode()) if below else diff_id


def names_of(diff_id: str, below: str | None) -> tuple[str, str]:
    """Return what a layer is called that stands alone, and one that does not.

    The latter is its chain id, but for the lowest layer, as that would be its diff id.
    """
    return diff_id, digest_of(f"{below or ''} {diff_id}".encode())


def all_names(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """Return all that the layers of an image, the lowest first, may be called."""
    below: str | None = None
    found: list[str] = []
    for diff_id in diff_ids:
        found += names_of(diff_id, below)
        below = chain_id(below, diff_id)
    return tuple(found)
