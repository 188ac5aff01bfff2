"""PYTEST_DONT_REWRITE. Blobs as they come: checked while they stream into the store, and resumed after a cut."""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import RegistryError
from pytest_sandbox_runtime.images.registry.trouble import TROUBLE, unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.images.ingest import Ingest
    from pytest_sandbox_runtime.images.layout import Layout
    from pytest_sandbox_runtime.images.leases import Lease
    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.images.registry.meter import Meter
    from pytest_sandbox_runtime.images.registry.repository import Repository
    from pytest_sandbox_runtime.images.registry.transport import Answer

_CHUNK = 1 << 20
_SHORT = 0.05
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")
_AGAIN = "it may have been damaged on its way, or the registry is wrong: pull again"


class Fetching:
    """Fetches blobs of ``repository`` into ``layout``, from several threads, until it is stopped."""

    def __init__(self, repository: Repository, layout: Layout, lease: Lease, meter: Meter | None = None) -> None:
        self._repository = repository
        self._transport = repository.connection.transport
        self._layout = layout
        self._lease = lease
        self._meter = meter
        self._answers: set[Answer] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Fetch no more: what is waited for comes to its end."""
        with self._lock:
            self._stopped.set()
            for answer in self._answers:
                answer.break_off()

    def fetch(self, descriptor: Descriptor) -> None:
        """Have the blob in the store; raises RegistryError where the registry has it not, or another one."""
        digest, size = descriptor.digest, descriptor.size
        if self._layout.has(digest, size, self._lease):
            self._tell(digest, size)
            return
        with self._layout.resume(digest, self._lease, self._pause) as blob:
            # Somebody else may have been at it, and is done.
            if self._layout.has(digest, size, self._lease):
                self._tell(digest, size)
                return
            was_there = bool(blob.size)
            self._fill(blob, descriptor)
            if was_there and blob.digest != digest:
                blob.restart()
                self._fill(blob, descriptor)
            if blob.digest != digest:
                said = f"{self._repository} sent something else than the blob {digest}: its digest is {blob.digest}"
                blob.restart()
                raise RegistryError(said, hint=_AGAIN)
            blob.commit(digest, size)

    def _pause(self) -> None:
        """Let somebody else be at it, who is asked for again: flock(2) would not let itself be interrupted here."""
        self._stopped.wait(_SHORT)
        self._check_wanted()

    def _fill(self, blob: Ingest, descriptor: Descriptor) -> None:
        """Append what is missing; a cut is mended as often as it takes while each try brings something."""
        if blob.size > descriptor.size:
            blob.restart()
        waits = self._transport.waits()
        while blob.size < descriptor.size:
            before = blob.size
            error = self._append(blob, descriptor)
            if error is None:
                continue
            if blob.size > before:
                waits = self._transport.waits()
            wait = next(waits, None)
            if wait is None:
                raise error
            self._transport.pause(wait, self._repository.connection.endpoint.host, self._stopped)
            self._check_wanted()

    def _append(self, blob: Ingest, descriptor: Descriptor) -> RegistryError | None:
        """Append what comes of one answer; returns what went wrong and may not the next time."""
        with self._repository.blob(descriptor, blob.size) as answer:
            if not _is_asked_for(answer, blob.size):
                blob.restart()
                if answer.status != 200:
                    return RegistryError(f"{answer.host} sent another part of {descriptor.digest} than was asked for")
            try:
                with self._watched(answer):
                    self._pour(answer, blob, descriptor)
            except TROUBLE as error:
                self._check_wanted()
                return unreachable(answer.host, error)
            if blob.size < descriptor.size:
                said = f"{answer.host} ends the blob {descriptor.digest} after {blob.size} of {descriptor.size} bytes"
                return RegistryError(said, hint=_AGAIN)
        return None

    @contextlib.contextmanager
    def _watched(self, answer: Answer) -> Iterator[None]:
        with self._lock:
            self._answers.add(answer)
        try:
            yield
        finally:
            with self._lock:
                self._answers.discard(answer)

    def _pour(self, answer: Answer, blob: Ingest, descriptor: Descriptor) -> None:
        left = descriptor.size - blob.size
        while data := answer.read(_CHUNK):
            self._check_wanted()
            left -= len(data)
            if left < 0:
                blob.restart()
                said = f"{answer.host} sends more than the {descriptor.size} bytes of the blob {descriptor.digest}"
                raise RegistryError(said, hint=_AGAIN)
            blob.write(data)
            self._tell(descriptor.digest, blob.size)
        self._check_wanted()

    def _tell(self, digest: str, position: int) -> None:
        if self._meter is not None:
            self._meter.at(digest, position)

    def _check_wanted(self) -> None:
        if self._stopped.is_set():
            raise RegistryError(f"nothing more is wanted of {self._repository}")


def _is_asked_for(answer: Answer, start: int) -> bool:
    """Whether what comes begins where what is there ends."""
    if answer.status != 206:
        return answer.status == 200 and start == 0
    found = _RANGE.match(answer.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == start
