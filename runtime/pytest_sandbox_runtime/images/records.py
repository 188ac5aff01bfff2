"""PYTEST_DONT_REWRITE. What is remembered: one JSON file a key, written beside its place and renamed into it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.digest import check_digest
from pytest_sandbox_runtime.images.documents import Document, canonical, read_document
from pytest_sandbox_runtime.images.manifest import Descriptor
from pytest_sandbox_runtime.images.stack import names_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

_PARTIAL = ".partial-"
# Nobody needs a day, in seconds, to write a few hundred bytes.
_LONG = 86400


@dataclass(frozen=True)
class Record:
    """What a key led to: a layer, its blob, or both; ``notes_json`` is whatever else its maker wants back, as JSON.

    ``below`` is the chain id of what the layer is over, None for nothing.
    """

    diff_id: str | None = None
    descriptor: Descriptor | None = None
    notes_json: str = "{}"
    below: str | None = None

    @property
    def notes(self) -> dict[str, Any]:
        """What its maker noted; the caller's own copy."""
        notes: dict[str, Any] = json.loads(self.notes_json)
        return notes

    @property
    def is_weak(self) -> bool:
        """Whether what it led to may go when nothing else keeps it."""
        return bool(self.notes.get("weak"))

    @property
    def layers(self) -> tuple[str, ...]:
        """What its layer may be called in the store."""
        return names_of(self.diff_id, self.below) if self.diff_id else ()

    @property
    def digests(self) -> tuple[str, ...]:
        """What is needed for this to be of use."""
        return (*self.layers, self.descriptor.digest) if self.descriptor else self.layers

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read one; raises ImageError."""
        diff_id = check_digest(document.text("diff_id")) if "diff_id" in document else None
        descriptor = Descriptor.of(document.document("descriptor")) if "descriptor" in document else None
        below = check_digest(document.text("below")) if "below" in document else None
        return cls(diff_id, descriptor, document.document("notes").as_json(), below)

    def to_bytes(self, key: str) -> bytes:
        """Return what its file holds; the key is there for people."""
        descriptor = self.descriptor.as_dict() if self.descriptor else None
        fields = {"diff_id": self.diff_id, "below": self.below, "descriptor": descriptor, "notes": self.notes}
        return canonical({"key": key, **fields})


class Records:
    """The records in the directory ``path``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def recall(self, key: str) -> Record | None:
        """Return what ``key`` led to, and note that it was of use; None where nothing, or nothing whole, is known."""
        path = self._of(key)
        with contextlib.suppress(OSError, ImageError):
            with open(path, "rb") as file:
                record = Record.of(read_document(file.read(), path))
                os.utime(file.fileno())
            return record
        return None

    def remember(self, key: str, record: Record) -> None:
        """Note what ``key`` led to, in place of what it led to before."""
        partial = os.path.join(self.path, _PARTIAL + os.urandom(16).hex())
        try:
            with open(partial, "xb") as file:
                file.write(record.to_bytes(key))
            os.replace(partial, self._of(key))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
            raise

    def forget(self, key: str) -> None:
        """Know nothing of ``key`` any more."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._of(key))

    def sweep(self) -> None:
        """Remove what was half written when its maker died."""
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            with contextlib.suppress(FileNotFoundError):
                if name.startswith(_PARTIAL) and time.time() - os.stat(path).st_mtime > _LONG:
                    os.unlink(path)

    def all(self) -> Iterator[tuple[str, Record, float]]:
        """Yield each record's path, the record and when it was last of use; none that is damaged, or half written."""
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            with contextlib.suppress(FileNotFoundError):
                used = os.stat(path).st_mtime
                record = None if name.startswith(_PARTIAL) else self._read(path)
                if record is not None:
                    yield path, record, used

    def _read(self, path: str) -> Record | None:
        try:
            with open(path, "rb") as file:
                return Record.of(read_document(file.read(), path))
        except ImageError:
            return None

    def _of(self, key: str) -> str:
        return os.path.join(self.path, hashlib.sha256(os.fsencode(key)).hexdigest() + ".json")
