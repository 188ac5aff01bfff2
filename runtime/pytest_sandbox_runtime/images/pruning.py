"""PYTEST_DONT_REWRITE. What goes from a store, and when: never what is in use, nor what a kept name or record leads to.

Marked from the images in the index, the records and the living leases; the rest is swept. Unpacked layers whose blob
is there, and records, can be had again for some work: they go by age, and by size the longest unused first.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.images.home import ANSWERS
from pytest_sandbox_runtime.images.layout import canonical_name
from pytest_sandbox_runtime.images.places import explained, remove_tree, tree_size
from pytest_sandbox_runtime.images.stack import all_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.images.store import Store


@dataclass(frozen=True)
class Usage:
    """What the store takes on disk, in bytes, and how many of each there are."""

    images: int
    blobs: int
    blob_bytes: int
    layers: int
    layer_bytes: int
    records: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.blob_bytes + self.layer_bytes


@dataclass(frozen=True)
class Pruned:
    """What went: the images that had no name or were unused, how many records, blobs and layers, and their bytes."""

    images: tuple[str, ...] = ()
    records: int = 0
    blobs: int = 0
    layers: int = 0
    freed: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(
            self.images + other.images,
            self.records + other.records,
            self.blobs + other.blobs,
            self.layers + other.layers,
            self.freed + other.freed,
        )


def disk_usage(store: Store) -> Usage:
    """Return what ``store`` takes on disk."""
    blobs = [size for digest in store.images.digests() if (size := store.images.size(digest)) is not None]
    layers = [store.layers.size(name) for name in store.layers.all()]
    images = len({one.digest for one in store.images.index().manifests})
    return Usage(images, len(blobs), sum(blobs), len(layers), sum(layers), sum(1 for _ in store.records.all()))


def prune(
    store: Store, *, older_than: float | None = None, max_bytes: int | None = None, tagged: bool = False
) -> Pruned:
    """Remove what is not needed: images without a name, and what nothing leads to.

    With ``tagged`` also images with a name that nobody uses. ``older_than`` seconds without use is what an image has
    to have for it, and makes records and unpacked layers of that age go too. ``max_bytes`` is what shall be left at
    most, if that can be had by forgetting records and unpacked layers. Nothing that is in use goes; what dead writers
    have left half written does.
    """
    limit = None if older_than is None else time.time() - older_than
    with explained(store.path):
        # What is gone may have been answered.
        remove_tree(os.path.join(store.path, ANSWERS))
        for part in (store.images, store.layers, store.records):
            part.sweep()
        images = _forget_images(store, limit, tagged=tagged)
        records = _forget_records(store, limit)
        done = Pruned(images, records) + collect(store, unused_since=limit)
        if max_bytes is not None:
            done += _shrink_to(store, max_bytes)
    return done


def collect(store: Store, *, unused_since: float | None = None, only: Iterable[str] = ()) -> Pruned:
    """Remove the blobs and layers that nothing leads to, and the layers in ``only`` or not used since then.

    A layer whose blob is not there stays as long as something leads to it.
    """
    images = store.images  # to make one, others have to be let through the gate
    with store.leases.alone():
        pins = store.leases.in_use()
        needed, again = _mark(store, pins)
        stale = {one for one, used in store.layers.all().items() if unused_since is not None and used < unused_since}
        stale = ((stale | set(only)) & again) - pins
        layers = [one for one in store.layers.all() if one not in needed or one in stale]
        trash = [*store.layers.trash(), *store.layers.discard(layers)]
        blobs = [one for one in images.digests() if one not in needed]
        freed = sum(images.size(one) or 0 for one in blobs)
        for one in blobs:
            images.delete(one)
    for path in trash:
        freed += tree_size(path)
        # Another one may be at it as well.
        with contextlib.suppress(FileNotFoundError):
            remove_tree(path)
    return Pruned((), 0, len(blobs), len(layers), freed)


def _mark(store: Store, pins: set[str]) -> tuple[set[str], set[str]]:
    """Return all digests that are needed, and the layers among them that can be unpacked again."""
    roots = {one.digest for one in store.images.index().manifests} | pins
    needed: set[str] = set()
    again: set[str] = set()
    for _, record, _ in store.records.all():
        if not record.is_weak:
            roots.update(record.digests)
        if record.descriptor:
            again.update(record.layers)
    for root in roots:
        for digest in store.images.reach(root):
            needed.add(digest)
            layers = all_names(store.images.diff_ids_of(digest))
            needed.update(layers)
            again.update(layers)
    return needed, again


def _forget_images(store: Store, limit: float | None, *, tagged: bool) -> tuple[str, ...]:
    with store.leases.alone():
        pins = store.leases.in_use()
    used = store.layers.all()
    gone: list[str] = []

    def is_kept(one: Descriptor) -> bool:
        if canonical_name(one) is not None and not tagged:
            return True
        needs = {one.digest, *all_names(store.images.diff_ids_of(one.digest))}
        times = [used.get(digest, 0.0) for digest in needs] + [_stored_at(store, one.digest)]
        if needs & pins or (limit is not None and max(times) > limit):
            return True
        gone.append(canonical_name(one) or one.digest)
        return False

    store.images.change(lambda there: [one for one in there if is_kept(one)])
    return tuple(gone)


def _stored_at(store: Store, digest: str) -> float:
    try:
        return os.stat(store.images.blob_path(digest)).st_mtime
    except FileNotFoundError:
        return 0.0


def _forget_records(store: Store, limit: float | None) -> int:
    old = [path for path, _, used in store.records.all() if limit is not None and used < limit]
    for path in old:
        _unlink(path)
    return len(old)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _shrink_to(store: Store, max_bytes: int) -> Pruned:
    done, began = Pruned(), time.time()
    total = disk_usage(store).total
    while total - done.freed > max_bytes and (more := _shrink(store, began)) is not None:
        done += more
    return done


def _shrink(store: Store, began: float) -> Pruned | None:
    """Remove one record, or one layer that can be unpacked again: that which was not used for longest.

    None that was used since ``began``: whoever builds meanwhile could keep this busy for ever.
    """
    with store.leases.alone():
        pins = store.leases.in_use()
    _, again = _mark(store, pins)
    candidates: list[tuple[float, str, str]] = [
        (used, path, "") for path, record, used in store.records.all() if not pins.intersection(record.digests)
    ]
    candidates += [(used, "", one) for one, used in store.layers.all().items() if one in again - pins]
    used, path, layer = min(candidates, default=(began, "", ""))
    if used >= began:
        return None
    if path:
        _unlink(path)
        return Pruned(records=1) + collect(store)
    return collect(store, only=[layer])
