"""Images are found by their names and their platforms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, ImageConfig, Index, Manifest
from pytest_sandbox_runtime.images.platforms import Platform
from tests.unit.layout.images import add_image, name, names

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.layout import Layout
    from pytest_sandbox_runtime.images.leases import Lease


def test_an_image_is_found_by_its_name(layout: Layout, lease: Lease) -> None:
    image = add_image(layout, lease)
    layout.tag(name("debian:12"), image, lease)
    layout.tag(name("ghcr.io/a/b"), image, lease)
    assert names(layout) == ["docker.io/library/debian:12", "ghcr.io/a/b:latest"]
    for text in ("debian:12", "docker.io/library/debian:12", f"debian@{image.digest}", "ghcr.io/a/b"):
        found = layout.resolve(name(text))
        assert found is not None
        assert found.bare() == image
    assert layout.resolve(name("debian")) is None
    assert layout.resolve(name("debian@" + digest_of(b"other"))) is None


def test_a_name_moves_and_its_image_stays_without_one(layout: Layout, lease: Lease) -> None:
    first, second = add_image(layout, lease, b"1"), add_image(layout, lease, b"2")
    layout.tag(name("a"), first, lease)
    layout.tag(name("a"), second, lease)
    assert names(layout) == [None, "docker.io/library/a:latest"]
    assert layout.index().manifests[0] == first
    layout.tag(name("b"), first, lease)
    assert names(layout) == ["docker.io/library/a:latest", "docker.io/library/b:latest"]
    layout.tag(name("b"), second, lease)
    layout.tag(name("a"), second, lease)
    assert [one.digest for one in layout.index().manifests] == [first.digest, second.digest, second.digest]


def test_an_image_without_a_name_is_there_once(layout: Layout, lease: Lease) -> None:
    image = add_image(layout, lease)
    layout.put(image)
    layout.put(image)
    assert layout.index().manifests == (image,)
    layout.tag(name("a"), image, lease)
    layout.put(image)
    assert names(layout) == ["docker.io/library/a:latest"]


def test_a_name_is_taken_away_once(layout: Layout, lease: Lease) -> None:
    layout.tag(name("a"), add_image(layout, lease), lease)
    assert layout.remove(name("a"))
    assert not layout.remove(name("a"))
    assert layout.index() == Index()


def test_what_is_not_there_gets_no_name(layout: Layout, lease: Lease) -> None:
    with pytest.raises(ImageError, match="the store lacks the image"):
        layout.tag(name("a"), Descriptor(OCI_MANIFEST, digest_of(b""), 5), lease)


def test_of_several_platforms_the_named_one_is_found(layout: Layout, lease: Lease) -> None:
    found = [add_image(layout, lease, platform=one) for one in ("linux/arm64", "linux/s390x")]
    platforms = [Platform.parse(one) for one in ("linux/arm64", "linux/s390x")]
    entries = tuple(
        Descriptor(one.media_type, one.digest, one.size, platform)
        for one, platform in zip(found, platforms, strict=True)
    )
    index = Index(entries)
    inner = layout.add_bytes(index.to_bytes(), index.media_type, lease)
    outer = layout.add_bytes(Index((inner,)).to_bytes(), index.media_type, lease)
    descriptor, manifest = layout.manifest_of(outer, Platform.parse("linux/s390x"))
    assert descriptor.digest == found[1].digest
    assert layout.config_of(manifest).platform.architecture == "s390x"
    assert set(layout.reach(outer.digest)) >= {outer.digest, inner.digest, *(one.digest for one in found)}


def test_indexes_in_indexes_end(layout: Layout, lease: Lease) -> None:
    descriptor = add_image(layout, lease)
    for _ in range(5):
        index = Index((descriptor,))
        descriptor = layout.add_bytes(index.to_bytes(), index.media_type, lease)
    with pytest.raises(ImageError, match="lies in more than 4 indexes"):
        layout.manifest_of(descriptor)


def test_a_manifest_and_a_config_of_different_lengths_are_refused(layout: Layout, lease: Lease) -> None:
    config = layout.add_bytes(ImageConfig(diff_ids=(digest_of(b""),)).to_bytes(), OCI_CONFIG, lease)
    with pytest.raises(ImageError, match="has 1 layers, and its manifest has 0"):
        layout.config_of(Manifest(config))


def test_a_damaged_index_is_an_error_that_names_it(layout: Layout) -> None:
    index = Path(layout.path, "index.json")
    index.write_text("{")
    with pytest.raises(ImageError, match="index.json is no JSON"):
        layout.index()
    index.unlink()
    with pytest.raises(ImageError, match="has lost its index.json"):
        layout.index()


def test_names_that_other_tools_give_are_kept(layout: Layout, lease: Lease) -> None:
    image = add_image(layout, lease)
    note: dict[str, Any] = {**image.as_dict(), "annotations": {"org.opencontainers.image.ref.name": "No Reference"}}
    Path(layout.path, "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [note]}))
    layout.tag(name("a"), image, lease)
    assert names(layout) == ["No Reference", "docker.io/library/a:latest"]
