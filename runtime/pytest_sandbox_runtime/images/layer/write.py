"""PYTEST_DONT_REWRITE. An overlay's upper directory, written as the tar of an OCI layer: the image-spec's layer.md."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.attributes import Identities
from pytest_sandbox_runtime.images.layer.header import END, FILE, encode, padding
from pytest_sandbox_runtime.images.layer.walk import Walk
from pytest_sandbox_runtime.specs.epoch import SOURCE_DATE_EPOCH

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pytest_sandbox_runtime.images.layer.walk import Member

_CHUNK = 1 << 20
_SAME = Identities()
_IMPOSSIBLE = "remove or rename it in the step that made it, and do not write to it meanwhile"
_UNREADABLE = "files of the sandbox's other users can be read in its user namespace only"


class Writable(Protocol):
    """What a layer is written to; it may take less than all."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Append ``data``; returns how much of it."""


class LayerDigest(NamedTuple):
    """What a layer's tar is called, "sha256:" and 64 digits, and its size in bytes."""

    diff_id: str
    size: int


def write_layer(
    upper: str,
    stream: Writable,
    *,
    lowers: Sequence[str] | None = None,
    epoch: int = SOURCE_DATE_EPOCH,
    user_namespace: bool = False,
    identities: Identities = _SAME,
    without: Collection[str] = (),
) -> LayerDigest:
    """Write what changed in an overlay to ``stream``, so that what is seen alike before and after gives the same bytes.

    ``lowers`` are the overlay's lower directories, top first; () for a layer that nothing is below. With None the
    layer says all that is in ``upper``, changed or not. No mtime is later than ``epoch``. ``user_namespace`` is
    whether the overlay was mounted with userxattr, ``identities`` how its ids look from here; ``without`` names paths,
    relative to the root, of which the layer says nothing. Raises ImageError for what cannot be read or cannot be in a
    layer, OSError where ``stream`` does not take it.
    """
    tar = _Tar(stream)
    walk = Walk(lowers, epoch, identities, without, user_namespace=user_namespace)
    for block in _blocks(walk, upper):
        tar.write(block)
    tar.write(END)
    return LayerDigest(f"sha256:{tar.digest.hexdigest()}", tar.size)


class _Tar:
    """What is written, counted and digested."""

    def __init__(self, stream: Writable) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.size += len(data)
        left = memoryview(data)
        while left:
            left = left[self._stream.write(left) :]  # a raw stream may take less than all


def _blocks(walk: Walk, upper: str) -> Iterator[bytes]:
    # What goes wrong while a block is written is thrown where it is written, not here.
    try:
        for member in walk.members(upper):
            yield encode(member.entry)
            if member.entry.kind == FILE and member.entry.size:
                yield from _data(member)
                yield padding(member.entry.size)
    except (OSError, ValueError) as error:
        shown = os.fsdecode(walk.at)
        reason = getattr(error, "strerror", None) or error
        hint = _UNREADABLE if isinstance(error, PermissionError) else _IMPOSSIBLE
        raise ImageError(f"cannot write {shown!r} of {upper} to a layer: {reason}", hint=hint) from error


def _data(member: Member) -> Iterator[bytes]:
    left = member.entry.size
    while left:
        chunk = os.read(member.data, min(left, _CHUNK))
        if not chunk:
            raise ValueError(f"it became {left} bytes shorter while it was read")
        left -= len(chunk)
        yield chunk
