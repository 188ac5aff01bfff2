"""The documents of images: read with suspicion, and written so that their digests never change."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.manifest import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    compression_of,
    layer_type,
    parse_manifest,
)
from pytest_sandbox_runtime.images.platforms import Platform

DIGEST = "sha256:" + "ab" * 32
LAYER = {"mediaType": f"{OCI_LAYER}+gzip", "digest": DIGEST, "size": 7}
MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 5},
    "layers": [LAYER],
    "annotations": {"b": "2", "a": "1"},
}
DOCKERS: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": DOCKER_MANIFEST,
    "config": {"mediaType": DOCKER_CONFIG, "size": 7023, "digest": DIGEST},
    "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 32654, "digest": DIGEST}],
}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": DOCKER_LIST,
    "manifests": [
        {
            "mediaType": DOCKER_MANIFEST,
            "digest": DIGEST,
            "size": 7682,
            "platform": {
                "architecture": "arm",
                "os": "linux",
                "variant": "v7",
                "os.features": ["x"],
                "os.version": "1",
            },
        }
    ],
}
CONFIG: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2026-01-01T00:00:00Z",
    "config": {
        "Env": ["PATH=/bin"],
        "Cmd": ["sh"],
        "Entrypoint": None,
        "Labels": {"a": "b"},
        "ExposedPorts": {"80/tcp": {}},
    },
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    "history": [{"created_by": "x"}, {"created_by": "ENV", "empty_layer": True}],
    "docker_version": "20.10.24",
}


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


def test_an_oci_manifest_is_read_whole() -> None:
    assert parse_manifest(encode(MANIFEST)) == Manifest(
        config=Descriptor(OCI_CONFIG, DIGEST, 5),
        layers=(Descriptor(f"{OCI_LAYER}+gzip", DIGEST, 7),),
        annotations=(("a", "1"), ("b", "2")),
    )


def test_dockers_manifest_and_list_are_read_as_well() -> None:
    manifest, index = parse_manifest(encode(DOCKERS)), parse_manifest(encode(INDEX))
    assert isinstance(manifest, Manifest)
    assert (manifest.media_type, manifest.layers[0].size) == (DOCKER_MANIFEST, 32654)
    assert isinstance(index, Index)
    assert index.manifests[0].platform == Platform("linux", "arm", "v7", "1", ("x",))


@pytest.mark.parametrize("document", [MANIFEST, DOCKERS, INDEX], ids=["manifest", "docker", "index"])
def test_what_is_written_is_read_as_the_same_and_pickles(document: dict[str, Any]) -> None:
    read = parse_manifest(encode(document))
    assert parse_manifest(read.to_bytes(), read.media_type) == read
    assert json.loads(read.to_bytes()) == document
    assert pickle.loads(pickle.dumps(read)) == read
    assert hash(read) == hash(parse_manifest(encode(document)))


def test_the_digest_of_a_document_does_not_depend_on_the_order_of_its_fields() -> None:
    other = dict(reversed(MANIFEST.items()))
    assert parse_manifest(encode(other)).to_bytes() == parse_manifest(encode(MANIFEST)).to_bytes()


def test_the_digests_of_documents_never_change() -> None:
    assert digest_of(parse_manifest(encode(MANIFEST)).to_bytes()) == (
        "sha256:fdd1f558b646aa9363df372ce5adcf7988f4af29a0cb9f7d9a1a6d56cda75520"
    )
    assert digest_of(ImageConfig.from_bytes(encode(CONFIG)).to_bytes()) == (
        "sha256:af6b707d3b4af16e702c16d85b6a0c0cfa0b2f89f59524da0e8410967245ebd8"
    )


def test_a_type_that_is_not_said_is_seen() -> None:
    assert isinstance(parse_manifest(encode({**MANIFEST, "mediaType": None})), Manifest)
    index = {"schemaVersion": 2, "manifests": []}
    assert parse_manifest(encode(index)) == Index()
    assert parse_manifest(encode(index), OCI_INDEX) == Index()


def test_an_empty_index_is_written_with_its_manifests() -> None:
    assert json.loads(Index().to_bytes())["manifests"] == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is no JSON: "),
        (b"\xff", "is no JSON: "),
        (b"[]", "is no JSON object"),
        (b'{"a": NaN}', "is no JSON: NaN is no number"),
        (b"[" * 100_000, "is no JSON: "),
        (b'{"schemaVersion": ' + b"9" * 5000 + b"}", "is no JSON: |which is no size"),
        (b" " * (4 << 20) + b"{}", "has 4194306 bytes, and may have 4194304"),
        (encode({**MANIFEST, "schemaVersion": 1}), "has schemaVersion 1, and 2 is read"),
        (encode({**MANIFEST, "mediaType": "text/html"}), "is of the unknown type 'text/html'"),
        (encode({**MANIFEST, "mediaType": 5}), "has mediaType: 5, which is no string"),
        (
            encode({**MANIFEST, "mediaType": OCI_INDEX}),
            f"is of type {re.escape(OCI_INDEX)} and has layers or a config all the same",
        ),
        (encode({**MANIFEST, "manifests": []}), "and has manifests or a config all the same"),
        (encode({**INDEX, "layers": []}), "and has layers or a config all the same"),
        (encode({**MANIFEST, "config": None}), "has no config"),
        (
            encode(
                {**MANIFEST, "config": {**MANIFEST["config"], "mediaType": "application/vnd.cncf.helm.config.v1+json"}}
            ),
            "is no image: its config is 'application/vnd.cncf.helm",
        ),
        (encode({**MANIFEST, "layers": [5]}), r"has layers\[0\]: 5, which is no object"),
        (encode({**MANIFEST, "layers": {}}), r"has layers: {}, which is no array"),
        (encode({**MANIFEST, "layers": [{**LAYER, "size": -1}]}), r"layers\[0\] has size: -1, which is no size"),
        (encode({**MANIFEST, "layers": [{**LAYER, "size": True}]}), "has size: True, which is no size"),
        (encode({**MANIFEST, "layers": [{**LAYER, "size": 1 << 63}]}), "which is no size"),
        (encode({**MANIFEST, "layers": [{**LAYER, "digest": "sha256:abc"}]}), "is no digest that can be used"),
        (encode({**MANIFEST, "layers": [{**LAYER, "mediaType": "text/plain"}]}), "unknown media type 'text/plain'"),
        (encode({**MANIFEST, "annotations": {"a": 1}}), r"has annotations\[a\]: 1, which is no string"),
        (encode({**MANIFEST, "annotations": {"a": "\ud800"}}), "which is half a character"),
        (encode({"schemaVersion": 1, "fsLayers": []}), "is of Docker's schema 1"),
        (
            encode({"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}),
            "is of Docker's schema 1",
        ),
    ],
)
def test_what_is_wrong_in_a_manifest_is_told(data: bytes, why: str) -> None:
    with pytest.raises(ImageError, match=why) as caught:
        parse_manifest(data, what="the manifest of x")
    assert caught.value.message.startswith("the manifest of x")


def test_a_manifest_that_is_not_what_it_was_said_to_be_is_refused() -> None:
    with pytest.raises(
        ImageError, match=re.escape(f"was said to be {OCI_INDEX}, and says itself that it is {OCI_MANIFEST}")
    ):
        parse_manifest(encode(MANIFEST), OCI_INDEX)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    ],
)
def test_a_foreign_layer_is_refused_with_the_reason(media_type: str) -> None:
    layer = {**LAYER, "mediaType": media_type, "urls": ["https://example.com/x"]}
    with pytest.raises(ImageError, match="its licence lets nobody but its maker distribute it"):
        parse_manifest(encode({**MANIFEST, "layers": [layer]}))


@pytest.mark.parametrize(
    ("media_type", "compression"),
    [
        (OCI_LAYER, "none"),
        (f"{OCI_LAYER}+gzip", "gzip"),
        (f"{OCI_LAYER}+zstd", "zstd"),
        ("application/vnd.docker.image.rootfs.diff.tar", "none"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd"),
    ],
)
def test_the_media_type_says_how_a_layer_is_packed(media_type: str, compression: str) -> None:
    assert compression_of(media_type) == compression
    assert compression_of(layer_type(compression)) == compression


def test_a_config_is_read_and_keeps_what_it_does_not_know_of_how_to_run() -> None:
    config = ImageConfig.from_bytes(encode({**CONFIG, "config": {**CONFIG["config"], "New": [1, {"x": None}]}}))
    assert config.platform == Platform("linux", "amd64")
    assert config.diff_ids == (DIGEST,)
    assert config.history == (History(created_by="x"), History(created_by="ENV", empty_layer=True))
    assert config.config["New"] == [1, {"x": None}]
    assert ImageConfig.from_bytes(config.to_bytes()) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert len({config, ImageConfig.from_bytes(config.to_bytes())}) == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rootfs": None}, "has no rootfs"),
        ({"rootfs": {"type": "tree", "diff_ids": []}}, "has the unknown type 'tree'"),
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, "has in diff_ids what is none"),
        ({"rootfs": {"type": "layers", "diff_ids": [5]}}, r"has diff_ids\[0\]: 5, which is no string"),
        ({"config": []}, r"has config: \[\], which is no object"),
        ({"config": {"Env": "PATH=/"}}, "has Env: 'PATH=/', which is no array"),
        ({"config": {"Cmd": [1]}}, r"has Cmd\[0\]: 1, which is no string"),
        ({"config": {"User": 0}}, "has User: 0, which is no string"),
        ({"config": {"Labels": []}}, "has Labels"),
        ({"config": {"ExposedPorts": [80]}}, "has ExposedPorts"),
        ({"history": [{"empty_layer": "yes"}]}, "has empty_layer: 'yes', which is no boolean"),
        ({"os": 1}, "has os: 1, which is no string"),
    ],
)
def test_what_is_wrong_in_a_config_is_told(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ImageError, match=why) as caught:
        ImageConfig.from_bytes(encode({**CONFIG, **change}), "the config of x")
    assert caught.value.message.startswith("the config of x")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([DIGEST, OCI_MANIFEST, OCI_LAYER, OCI_CONFIG]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["size", "digest", "mediaType", "config", "layers", "rootfs", "diff_ids", "platform"])
            | st.text(),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def paths(document: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [prefix, *(path for key, value in items for path in paths(value, (*prefix, key)))]


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy


@given(st.data(), st.sampled_from([MANIFEST, DOCKERS, INDEX, CONFIG]), JSON)
def test_a_changed_document_is_read_or_an_image_error(
    data: st.DataObject, document: dict[str, Any], value: object
) -> None:
    path = data.draw(st.sampled_from(paths(document)))
    text = encode(changed(document, path, value))
    for parse in (parse_manifest, ImageConfig.from_bytes):
        try:
            read = parse(text)
        except ImageError:
            continue
        assert parse(read.to_bytes()) == read


@given(
    st.one_of(
        st.binary(),
        JSON.map(encode),
        st.builds(
            lambda at, byte: encode(MANIFEST)[:at] + byte + encode(MANIFEST)[at:],
            st.integers(0, 300),
            st.binary(max_size=3),
        ),
    )
)
def test_any_bytes_are_a_document_or_an_image_error(data: bytes) -> None:
    for parse in (parse_manifest, ImageConfig.from_bytes):
        with contextlib.suppress(ImageError):
            parse(data)
