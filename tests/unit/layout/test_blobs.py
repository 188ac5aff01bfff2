"""Blobs are stored under their digests, and what is not what it should be is not stored."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.manifest import OCI_MANIFEST, Descriptor, Index
from tests.unit.layout.images import remains

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.layout import Layout
    from pytest_sandbox_runtime.images.leases import Lease


def test_an_empty_layout_is_what_the_image_spec_says(layout: Layout) -> None:
    path = Path(layout.path)
    assert json.loads((path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((path / "index.json").read_text())["manifests"] == []
    assert (path / "blobs/sha256").is_dir()
    assert layout.index() == Index()


def test_a_blob_is_stored_under_its_digest(layout: Layout, lease: Lease) -> None:
    digest, size = layout.add(io.BytesIO(b"hello"), lease)
    assert (digest, size) == (digest_of(b"hello"), 5)
    assert Path(layout.blob_path(digest)).read_bytes() == b"hello"
    assert layout.digests() == [digest]
    assert layout.size(digest) == 5
    assert layout.has(digest, 5, lease)
    assert not layout.has(digest, 6, lease)
    assert layout.read(Descriptor("x", digest, 5)) == b"hello"
    with layout.open(Descriptor("x", digest, 5)) as blob:
        assert blob.read() == b"hello"
    layout.delete(digest)
    layout.delete(digest)
    assert layout.digests() == []
    assert layout.size(digest) is None


@pytest.mark.parametrize(
    ("digest", "size", "why"),
    [
        (digest_of(b"other"), None, "has the digest"),
        (None, 4, "holds more than the 4 bytes"),
        (None, 6, "has 5 bytes, and should have 6"),
    ],
)
def test_a_blob_that_is_not_what_it_should_be_is_not_stored(
    layout: Layout, lease: Lease, digest: str | None, size: int | None, why: str
) -> None:
    with pytest.raises(ImageError, match=why):
        layout.add(io.BytesIO(b"hello"), lease, digest=digest, size=size)
    assert layout.digests() == []
    assert remains(layout) == []


def test_a_blob_that_is_missing_or_damaged_is_told(layout: Layout, lease: Lease) -> None:
    descriptor = layout.add_bytes(b"hello", "x", lease)
    Path(layout.blob_path(descriptor.digest)).write_bytes(b"hellO")
    with pytest.raises(ImageError, match=f"the blob {descriptor.digest} in the store is damaged"):
        layout.read(descriptor)
    Path(layout.blob_path(descriptor.digest)).write_bytes(b"")
    with pytest.raises(ImageError, match="has 0 bytes, and should have 5") as caught:
        layout.open(descriptor)
    assert "load, pull or build" in caught.value.hint
    layout.delete(descriptor.digest)
    with pytest.raises(ImageError, match="the store lacks the blob"):
        layout.open(descriptor)
    assert layout.add_bytes(b"hello", "x", lease) == descriptor
    assert layout.read(descriptor) == b"hello"


def test_a_blob_cut_by_a_lost_machine_is_written_again(layout: Layout, lease: Lease) -> None:
    descriptor = layout.add_bytes(b"hello", "x", lease)
    Path(layout.blob_path(descriptor.digest)).write_bytes(b"")
    assert layout.add_bytes(b"hello", "x", lease) == descriptor
    assert layout.read(descriptor) == b"hello"


def test_a_large_document_is_refused_unread(layout: Layout) -> None:
    with pytest.raises(ImageError, match="has 4194305 bytes, and may have 4194304"):
        layout.read(Descriptor(OCI_MANIFEST, digest_of(b""), (4 << 20) + 1))
