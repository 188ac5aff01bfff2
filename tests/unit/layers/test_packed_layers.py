"""Layers as they come, packed: their digests, and those that are cut or swell."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import lzma
import os
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.layer import AppliedLayer
from tests.unit.layers.applied import BASE, Layers
from tests.unit.tars import archive, directory, hardlink, member

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ZSTD = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def zstd(data: bytes) -> bytes:
    return bytes(ZSTD.compress(data))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
def test_the_digest_is_that_of_the_unpacked_tar(pack: Callable[[bytes], bytes], layers: Layers) -> None:
    plain = archive(directory("etc"), member("etc/file", os.urandom(3 << 20)), hardlink("twin", "etc/file")) + bytes(
        777
    )
    done = layers.apply_bytes(pack(plain))
    assert done == AppliedLayer(
        f"sha256:{hashlib.sha256(plain).hexdigest()}", len(plain), stands_alone=True, owners_lost=0
    )
    assert (layers.paths[0] / "twin").samefile(layers.paths[0] / "etc/file")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
def test_a_layer_cut_anywhere_is_truncated(pack: Callable[[bytes], bytes], layers: Layers) -> None:
    plain = archive(*BASE)
    packed = pack(plain)
    end = len(plain.rstrip(b"\0")) if pack is bytes else len(packed)
    for cut in range(1, end, 331 if pack is bytes else 19):
        with pytest.raises(ImageError, match="truncated or corrupt|is no tar") as caught:
            Layers(_new(layers.place / str(cut))).apply_bytes(packed[:cut])
        assert caught.value.hint


def _new(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_bomb_is_stopped_and_may_be_let_off(layers: Layers, tmp_path: Path) -> None:
    size = 300 << 20
    header = tarfile.TarInfo("zeros")
    header.size = size
    bomb = tmp_path / "bomb.tar.zst"
    with ZSTD.open(bomb, "wb") as packer:
        packer.write(header.tobuf())
        for _ in range(size >> 20):
            packer.write(bytes(1 << 20))
        packer.write(bytes(1024))
    with pytest.raises(ImageError, match="more than 2000 times as much") as caught:
        layers.apply_bytes(bomb.read_bytes())
    assert "pytest-sandbox load --max-ratio" in caught.value.hint
    with pytest.raises(ImageError, match="more than the 1000000 bytes"):
        Layers(_new(tmp_path / "again")).apply_bytes(bomb.read_bytes(), max_bytes=1_000_000)
    let_off = Layers(_new(tmp_path / "let-off"))
    let_off.apply_bytes(bomb.read_bytes(), max_ratio=10**6)
    status = (let_off.paths[0] / "zeros").stat()
    assert (status.st_size, status.st_blocks) == (size, 0)
