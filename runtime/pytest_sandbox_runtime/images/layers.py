"""PYTEST_DONT_REWRITE. Unpacked layers, each once whatever image uses it: directories that overlayfs stacks.

A layer is written under another name than its own (``stack.names_of``) and renamed: what has its name is whole,
whenever a maker was killed. What dead makers left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import stat
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.attributes import OVERRIDE, is_kept
from pytest_sandbox_runtime.images.digest import hex_of
from pytest_sandbox_runtime.images.mapped import needs_user_namespace, worker
from pytest_sandbox_runtime.images.places import remove_tree, tree_size
from pytest_sandbox_runtime.images.stack import EMPTY, Stack, names_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from filelock import BaseFileLock

    from pytest_sandbox_runtime.images.layer import AppliedLayer
    from pytest_sandbox_runtime.images.layout import Layout
    from pytest_sandbox_runtime.images.leases import Lease
    from pytest_sandbox_runtime.images.limits import Limits
    from pytest_sandbox_runtime.images.manifest import Descriptor

PARTIAL = ".partial-"
_TRASH = ".trash-"
_USED = ".used"
_AGAIN = "it may have been damaged on its way: load, pull or build the image again"


def apply(source: IO[bytes], target: str, below: Stack, name: str, limits: Limits | None = None) -> AppliedLayer:
    """Write the layer in the tar ``source`` into the empty directory ``target``; ``name`` is for errors."""
    return worker().read(_apply, source, target, below, name, limits)


def _apply(source: IO[bytes], target: str, below: Stack, name: str, limits: Limits | None) -> AppliedLayer:
    from pytest_sandbox_runtime.images.layer import apply_layer

    options = limits._asdict() if limits else {}
    in_namespace = needs_user_namespace()
    return apply_layer(source, target, lowers=below.roots, user_namespace=in_namespace, name=name, **options)


class Layers:
    """The layers in the directory ``path``; ``locks`` is where makers' locks and the times of last use are."""

    def __init__(self, path: str, locks: str) -> None:
        self.path = path
        self._locks = locks

    def find(self, diff_id: str, below: Stack, lease: Lease) -> Stack | None:
        """Return ``below`` with the layer, which stays as long as ``lease``; None where it is not there."""
        alone, dependent = names_of(diff_id, below.chain_id)
        lease.pin(alone, dependent)
        for name in (alone, dependent) if _is_ordinary(below) else (dependent,):
            if os.path.isdir(self._of(name)):
                self._touch(name)
                return below.with_layer(diff_id, self._of(name))
        return None

    def has_any(self, names: Iterable[str]) -> bool:
        """Whether one of ``names`` is there."""
        return any(os.path.isdir(self._of(name)) for name in names)

    def unpack(
        self,
        layout: Layout,
        descriptor: Descriptor,
        diff_id: str,
        lease: Lease,
        *,
        below: Stack = EMPTY,
        limits: Limits | None = None,
    ) -> Stack:
        """Return ``below`` with the layer, unpacked from its blob if it is not there yet; raises ImageError."""

        def fill(partial: str) -> AppliedLayer:
            what = f"the layer {descriptor.digest}"
            with layout.open(descriptor) as blob:
                done = apply(blob, partial, below, what, limits)
            if done.diff_id != diff_id:
                said = f"has the digest {done.diff_id}, and should have {diff_id}"
                raise ImageError(f"{what}, unpacked, {said}", hint=_AGAIN)
            return done

        _, key = names_of(diff_id, below.chain_id)
        return self.make(hex_of(key), fill, lease, diff_id=diff_id, below=below)

    def make(
        self,
        key: str,
        fill: Callable[[str], AppliedLayer],
        lease: Lease,
        *,
        diff_id: str | None = None,
        below: Stack = EMPTY,
    ) -> Stack:
        """Return ``below`` with the layer that ``fill`` writes into an empty directory.

        One at a time works for one ``key``. Where ``diff_id`` is known, and the layer there, nothing is done.
        """
        if diff_id and (found := self.find(diff_id, below, lease)):
            return found
        with self._lock(key):
            if diff_id and (found := self.find(diff_id, below, lease)):
                return found
            self.sweep(key)
            partial = os.path.join(self.path, PARTIAL + key)
            with ExitStack() as undo:
                undo.callback(remove_tree, partial)
                os.mkdir(partial, 0o700)
                done = fill(partial)
                return self.adopt(partial, done.diff_id, lease, below=below, stands_alone=done.stands_alone)

    def adopt(
        self, tree: str, diff_id: str, lease: Lease, *, below: Stack = EMPTY, stands_alone: bool = False
    ) -> Stack:
        """Make the directory ``tree``, on the store's file system, the layer, if that is not there yet.

        Returns ``below`` with it.
        """
        alone, dependent = names_of(diff_id, below.chain_id)
        lease.pin(alone, dependent)
        name = alone if stands_alone and _is_ordinary(below) else dependent
        try:
            os.rename(tree, self._of(name))
        except OSError:
            if not os.path.isdir(self._of(name)):
                raise
            remove_tree(tree)
        self._touch(name)
        return below.with_layer(diff_id, self._of(name))

    def all(self) -> dict[str, float]:
        """Return what all layers are called, and when each was last used."""
        names = [name for name in os.listdir(self.path) if len(name) == 64]
        return {f"sha256:{name}": self._used(name) for name in names}

    def size(self, name: str) -> int:
        """Return how many bytes the layer takes."""
        return tree_size(self._of(name))

    def discard(self, names: list[str]) -> list[str]:
        """Take these from their places, and return what is to be removed later; for whoever is alone in the gate."""
        gone = []
        for name in names:
            trash = os.path.join(self.path, _TRASH + os.urandom(16).hex())
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._of(name), trash)
                gone.append(trash)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._used_file(hex_of(name)))
        return gone

    def trash(self) -> list[str]:
        """Return what was discarded by somebody who did not come to remove it."""
        return [os.path.join(self.path, name) for name in os.listdir(self.path) if name.startswith(_TRASH)]

    def _of(self, name: str) -> str:
        return os.path.join(self.path, hex_of(name))

    def _touch(self, name: str) -> None:
        # On a full disk, what is there can be used all the same.
        with contextlib.suppress(OSError), open(self._used_file(hex_of(name)), "ab") as file:
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

    def sweep(self, mine: str = "") -> None:
        """Remove what dead makers left: they hold no lock any more; ``mine`` is the key whose lock is held here."""
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


def _is_ordinary(below: Stack) -> bool:
    """Whether a layer that does not say what the root is like looks the same over ``below`` as over nothing."""
    if not below.roots:
        return True
    root = below.roots[0]
    status = os.stat(root)
    owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else (0, 0)
    is_marked = any(name == OVERRIDE or is_kept(name) for name in os.listxattr(root))
    return stat.S_IMODE(status.st_mode) == 0o755 and owner == (0, 0) and not is_marked
