"""PYTEST_DONT_REWRITE. What a layer's declaration led to: keys, records, and one maker at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.images.documents import canonical
from pytest_sandbox_runtime.specs.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.images.building.chain import Chain
    from pytest_sandbox_runtime.images.building.telling import Telling
    from pytest_sandbox_runtime.images.config import Step
    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.images.store import Store

# To be raised when the same declaration begins to make other layers.
_VERSION = 4


class Cache:
    """The records of ``store``; with ``rebuild`` only those that this ``run``, by any of its workers, has made."""

    def __init__(self, store: Store, run: str, *, rebuild: bool, telling: Telling) -> None:
        self._store = store
        self._run = run
        self._rebuild = rebuild
        self._telling = telling

    def find(self, key: str) -> Descriptor | None:
        """Return the layer that ``key`` led to."""
        record = self._store.recall(f"layer:{key}")
        if record is None or (self._rebuild and record.notes.get("run") != self._run):
            return None
        return record.descriptor

    @contextlib.contextmanager
    def alone(self, key: str, name: str) -> Iterator[None]:
        """Be the only one, of all processes, who makes the layer; who dies meanwhile is no longer in the way."""
        from filelock import FileLock, Timeout

        lock = FileLock(os.path.join(self._store.path, "locks", f"build-{key}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            with self._telling(f"{name}: another process makes it; waiting"):
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def remember(self, key: str, step: Step, parts: dict[str, Any], layer: Descriptor) -> Descriptor:
        """Note what ``key`` led to, and of what it was made."""
        self._store.remember(f"last:{key_of(step.layer)}", parts=parts)
        self.note(key, layer)
        return layer

    def note(self, key: str, made: Descriptor) -> None:
        """Note what ``key`` led to."""
        self._store.remember(f"layer:{key}", descriptor=made, run=self._run)

    def reason(self, step: Step, parts: dict[str, Any]) -> str:
        """Say why there is no layer for ``parts``."""
        if self._rebuild:
            return "everything is to be made anew"
        last = self._store.recall(f"last:{key_of(step.layer)}")
        if last is None:
            return "it was never made with these words"
        before = last.notes.get("parts", {})
        changed = [words for name, words in _REASONS.items() if before.get(name) != parts[name]]
        return " and ".join(changed) or "its layer is no longer in the store"


_REASONS = {
    "parent": "the layers below it have changed",
    "force": "the environment, directory, user or shell it runs with has changed",
    "content": "the files it reads have changed",
}


def parts_of(chain: Chain, step: Step, content: str) -> dict[str, Any]:
    """Return all that decides how a layer becomes, besides its declaration."""
    force: list[Any] = [step.workdir]
    if step.run is not None:
        force += [sorted(map(list, step.env)), step.user, list(step.shell)]
    return {"parent": chain.stack.chain_id or "", "force": force, "content": content}


def key_from(step: Step, parts: dict[str, Any]) -> str:
    """Return the key of a layer: the same on any machine."""
    said = canonical({"version": _VERSION, "layer": key_of(step.layer), **parts})
    return hashlib.sha256(said).hexdigest()
