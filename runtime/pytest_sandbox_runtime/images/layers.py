"""PYTEST_DONT_REWRITE. Unpacked layers, each once whatever image uses it: directories that overlayfs stacks.

A layer is named by the hexadecimal digits of its diff id, written under another name and renamed: what has its name is
whole, whenever a maker was killed. What dead makers left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, cast

from pytest_sandbox_runtime.images.digest import DigestingReader, hex_of
from pytest_sandbox_runtime.images.manifest import compression_of
from pytest_sandbox_runtime.images.packing import NONE, blame, unpacked
from pytest_sandbox_runtime.images.places import remove_tree, tree_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from filelock import BaseFileLock

    from pytest_sandbox_runtime.images.digest import Digester
    from pytest_sandbox_runtime.images.layout import Layout
    from pytest_sandbox_runtime.images.leases import Lease
    from pytest_sandbox_runtime.images.manifest import Descriptor

PARTIAL = ".partial-"
_TRASH = ".trash-"
_USED = ".used"


def apply_layer(stream: IO[bytes] | DigestingReader, target: str) -> None:
    """Write what the layer tar ``stream`` says below the empty directory ``target``, as overlayfs(5) wants it."""
    from pytest_sandbox_runtime.images.unpack import unpack

    unpack(cast("IO[bytes]", stream), target)


def apply_measured(stream: IO[bytes], target: str, name: str) -> Digester:
    """Apply the layer tar ``stream``, to its very end, and return what its digest is; ``name`` is for errors."""
    with DigestingReader(stream, name) as reader:
        apply_layer(reader, target)
        reader.drain()
        return reader.seen


class Layers:
    """The layers in the directory ``path``; ``locks`` is where makers' locks and the times of last use are."""

    def __init__(self, path: str, locks: str) -> None:
        self.path = path
        self._locks = locks

    def find(self, diff_id: str, lease: Lease) -> str | None:
        """Return the directory of the layer, which stays as long as ``lease``; None where it is not there."""
        lease.pin(diff_id)
        layer = self._of(diff_id)
        if not os.path.isdir(layer):
            return None
        self._touch(diff_id)
        return layer

    def unpack(self, layout: Layout, descriptor: Descriptor, diff_id: str, lease: Lease) -> str:
        """Return the directory of the layer, unpacked from its blob if it is not there yet."""

        def fill(partial: str) -> str:
            what = f"the layer {descriptor.digest}"
            packing = compression_of(descriptor.media_type)
            with layout.open(descriptor) as blob, blame(what):
                if packing == NONE and descriptor.digest == diff_id:
                    apply_layer(blob, partial)  # the blob was checked when it was written
                else:
                    seen = apply_measured(unpacked(blob, packing), partial, what)
                    seen.check(diff_id, None, f"{what}, unpacked,")
            return diff_id

        return self.make(hex_of(diff_id), fill, lease, diff_id)

    def make(self, key: str, fill: Callable[[str], str], lease: Lease, diff_id: str | None = None) -> str:
        """Return the directory of the layer that ``fill`` writes into an empty directory, and says the diff id of.

        One at a time works for one ``key``. Where ``diff_id`` is known, and the layer there, nothing is done.
        """
        if diff_id and (layer := self.find(diff_id, lease)):
            return layer
        with self._lock(key):
            if diff_id and (layer := self.find(diff_id, lease)):
                return layer
            self._sweep(key)
            partial = os.path.join(self.path, PARTIAL + key)
            with ExitStack() as undo:
                undo.callback(remove_tree, partial)
                os.mkdir(partial, 0o700)
                return self.adopt(partial, fill(partial), lease)

    def adopt(self, tree: str, diff_id: str, lease: Lease) -> str:
        """Make the directory ``tree``, on the store's file system, the layer ``diff_id``, if that is not there yet."""
        lease.pin(diff_id)
        layer = self._of(diff_id)
        try:
            os.rename(tree, layer)
        except OSError:
            if not os.path.isdir(layer):
                raise
            remove_tree(tree)
        self._touch(diff_id)
        return layer

    def all(self) -> dict[str, float]:
        """Return the diff ids of all layers, and when each was last used."""
        names = [name for name in os.listdir(self.path) if len(name) == 64]
        return {f"sha256:{name}": self._used(name) for name in names}

    def size(self, diff_id: str) -> int:
        """Return how many bytes the layer takes."""
        return tree_size(self._of(diff_id))

    def discard(self, diff_ids: list[str]) -> list[str]:
        """Take these from their places, and return what is to be removed later; for whoever is alone in the gate."""
        gone = []
        for diff_id in diff_ids:
            trash = os.path.join(self.path, _TRASH + uuid.uuid4().hex)
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._of(diff_id), trash)
                gone.append(trash)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._used_file(hex_of(diff_id)))
        return gone

    def trash(self) -> list[str]:
        """Return what was discarded by somebody who did not come to remove it."""
        return [os.path.join(self.path, name) for name in os.listdir(self.path) if name.startswith(_TRASH)]

    def _of(self, diff_id: str) -> str:
        return os.path.join(self.path, hex_of(diff_id))

    def _touch(self, diff_id: str) -> None:
        # On a full disk, what is there can be used all the same.
        with contextlib.suppress(OSError), open(self._used_file(hex_of(diff_id)), "ab") as file:
            os.utime(file.fileno())

    def _used(self, name: str) -> float:
        for path in (self._used_file(name), os.path.join(self.path, name)):
            with contextlib.suppress(FileNotFoundError):
                return os.stat(path).st_mtime if path.endswith(_USED) else os.stat(path).st_ctime
        return 0.0

    def _used_file(self, name: str) -> str:
        return os.path.join(self._locks, f"layer-{name}{_USED}")

    def _lock(self, key: str) -> BaseFileLock:
        from filelock import FileLock

        return FileLock(os.path.join(self._locks, f"layer-{key}.lock"))

    def _sweep(self, mine: str) -> None:
        """Remove what dead makers left: they hold no lock any more."""
        for key in [name[len(PARTIAL) :] for name in os.listdir(self.path) if name.startswith(PARTIAL)]:
            with ExitStack() as held:
                if key == mine or self._try_lock(key, held):
                    remove_tree(os.path.join(self.path, PARTIAL + key))

    def _try_lock(self, key: str, held: ExitStack) -> bool:
        from filelock import Timeout

        try:
            held.enter_context(self._lock(key).acquire(timeout=0))
        except Timeout:
            return False
        return True
