"""Archives with something wrong are refused by what is wrong, and nothing of them gets in."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError, SandboxError
from pytest_sandbox_runtime.images.archive import load
from pytest_sandbox_runtime.images.digest import digest_of, hex_of
from pytest_sandbox_runtime.images.limits import Limits
from pytest_sandbox_runtime.images.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, Index, Manifest, layer_type
from pytest_sandbox_runtime.images.store import Store
from tests.unit.archives.images import BASE, NAME, TOP, config_of, docker_files, oci_files, pack
from tests.unit.archives.stored import is_empty, write
from tests.unit.tars import tar_of


def refusal(store: Store, path: str, **how: Any) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        load(store, path, **how)
    assert path in caught.value.message
    assert is_empty(store)
    return caught.value


OCI, DOCKER = oci_files(BASE, TOP, packing="gzip"), docker_files(BASE, TOP)
TOP_BLOB = f"blobs/sha256/{hex_of(digest_of(pack(TOP, 'gzip')))}"
TOP_FILE = f"{hex_of(digest_of(TOP))}/layer.tar"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({**OCI, TOP_BLOB: pack(BASE, "gzip")}, "and should have"),
        ({**OCI, TOP_BLOB: pack(TOP, "gzip")[:-1]}, "bytes, and should have"),
        ({key: value for key, value in OCI.items() if key != TOP_BLOB}, f"it has no {TOP_BLOB}"),
        ({**OCI, "index.json": b"{"}, "its index.json is no JSON"),
        ({**OCI, "index.json": b'{"schemaVersion": 2, "manifests": []}'}, "it holds no image"),
        ({**OCI, "index.json": bytes(5 << 20)}, "index.json is larger than the 4194304 bytes"),
        ({**OCI, TOP_BLOB: "/etc/passwd"}, f"it has no {TOP_BLOB}"),
        ({**DOCKER, TOP_FILE: BASE}, "and should have"),
        ({**DOCKER, TOP_FILE: pack(TOP, "gzip")[:-9]}, "is truncated or corrupt"),
        ({key: value for key, value in DOCKER.items() if key != TOP_FILE}, f"it has no {TOP_FILE}"),
        ({**DOCKER, "manifest.json": b"{}"}, "its manifest.json is no array of objects"),
        ({**DOCKER, "manifest.json": b"[]"}, "it holds no image"),
        ({**DOCKER, "manifest.json": b"[{}]"}, r"its manifest.json: \[0\] has no Config"),
        ({**DOCKER, "manifest.json": b'[{"Config": "../../etc/passwd", "Layers": []}]'}, "it has no ../../etc/passwd"),
        ({"manifest.json": b"[]", "x/y": b""}, "holds no root file system"),
        ({"readme": b"x"}, "holds no root file system"),
        ({"bin/../../escaped": b"x"}, "has .. in it"),
    ],
)
def test_what_is_wrong_in_an_archive_is_told_and_nothing_stays(
    store: Store, tmp_path: Path, files: dict[str, bytes | str], why: str
) -> None:
    error = refusal(store, write(tmp_path / "image.tar", tar_of(files)))
    assert isinstance(error, ImageError)
    assert why.replace("\\", "") in error.message


def test_a_layer_whose_content_is_not_what_its_config_says_is_refused(store: Store, tmp_path: Path) -> None:
    files = oci_files(BASE, packing="gzip")
    forged = oci_files(TOP, packing="gzip", names=(NAME,))
    config = config_of(BASE)
    (layer,) = [name for name, content in forged.items() if content == pack(TOP, "gzip")]
    manifest = Manifest(
        Descriptor.to(OCI_CONFIG, config), (Descriptor.to(layer_type("gzip"), forged[layer]),)
    ).to_bytes()
    index = Index((Descriptor.to(OCI_MANIFEST, manifest).named(NAME),)).to_bytes()
    files |= {layer: forged[layer], f"blobs/sha256/{hex_of(digest_of(manifest))}": manifest, "index.json": index}
    error = refusal(store, write(tmp_path / "image.tar", tar_of(files)))
    assert f"unpacked, has the digest {digest_of(TOP)}, and should have {digest_of(BASE)}" in error.message


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is no tar"),
        (b"hello", "is no tar"),
        (bytes(100), "is no tar"),
        (bytes(range(256)) * 8, "is no tar"),
        (pack(b"hello", "gzip"), "is no tar"),
        (pack(tar_of(OCI), "gzip")[:-9], "is truncated or corrupt"),
        (pack(tar_of(OCI), "zstd")[:-5], "is truncated or corrupt"),
        (tar_of(OCI)[:3000], "image.tar"),
        (BASE[:700], "is truncated or corrupt"),
    ],
    ids=["nothing", "a word", "zeros", "noise", "gzip", "cut gzip", "cut zstd", "cut image", "cut root"],
)
def test_what_is_no_archive_is_told(store: Store, tmp_path: Path, data: bytes, why: str) -> None:
    assert why in refusal(store, write(tmp_path / "image.tar", data)).message


def test_what_cannot_be_read_is_told(store: Store, tmp_path: Path) -> None:
    assert "No such file" in refusal(store, str(tmp_path / "none")).message
    os.mkfifo(tmp_path / "pipe")
    assert "is neither a file nor a directory" in refusal(store, str(tmp_path / "pipe")).message
    (tmp_path / "empty").mkdir()
    assert "is no OCI image layout: it has no index.json" in refusal(store, str(tmp_path / "empty")).message


def test_a_bomb_is_refused_at_the_limit_which_can_be_raised(store: Store, tmp_path: Path) -> None:
    zeros = tar_of({"bin/zero": bytes(20_000_000)})
    limits = Limits(max_bytes=10_000_000)
    for data in (zeros, gzip.compress(zeros), tar_of(docker_files(zeros, packing="gzip")), tar_of(oci_files(zeros))):
        path = write(tmp_path / "bomb.tar", data)
        refused = refusal(store, path, limits=limits)
        assert "holds more than the 10000000 bytes that it may" in refused.message
        assert "pytest-sandbox load --max-bytes" in refused.hint
        with Store(str(tmp_path / f"let-off-{len(data)}")) as other:
            assert load(other, path, limits=Limits(max_bytes=30_000_000))


def test_links_in_a_circle_lead_nowhere(store: Store, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {**DOCKER, TOP_FILE: "layer2.tar", TOP_FILE.replace("layer", "layer2"): "layer.tar"}
    assert f"it has no {TOP_FILE}" in refusal(store, write(tmp_path / "image.tar", tar_of(files))).message


def test_a_header_that_claims_gigabytes_is_not_believed(store: Store, tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 33
    data = header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)
    assert "a header of" in refusal(store, write(tmp_path / "image.tar", data)).message


WHOLE = [tar_of(OCI), tar_of(DOCKER), tar_of(oci_files(BASE)), BASE]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    whole=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), max_size=4),
    cut=st.none() | st.integers(0, 20_000),
)
def test_a_changed_archive_is_loaded_or_an_image_error(
    tmp_path: Path, whole: bytes, changes: list[tuple[int, bytes]], cut: int | None
) -> None:
    data = bytearray(whole)
    for at, new in changes:
        data[at % len(data) :][: len(new)] = new
        data[at % len(data) : at % len(data) + len(new)] = new
    path = write(tmp_path / "image.tar", bytes(data[:cut]))
    shutil.rmtree(tmp_path / "fuzzed", ignore_errors=True)
    with Store(str(tmp_path / "fuzzed")) as store:
        message = ""
        try:
            load(store, path)
        except ImageError as error:
            message = error.message
        assert not message or (path in message and is_empty(store))
        for digest in store.images.digests():
            assert digest_of(Path(store.images.blob_path(digest)).read_bytes()) == digest
