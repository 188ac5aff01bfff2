"""How much may come out of an archive, and how a user lets more come."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox.cli import main
from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.images import Images
from pytest_sandbox_runtime.images.limits import Limits
from pytest_sandbox_runtime.images.packed import unpacked
from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 1 << 20


@pytest.mark.parametrize(
    ("limits", "size", "packed"),
    [
        (Limits(max_bytes=10), 11, None),
        (Limits(max_bytes=10), 11, 11),
        (Limits(max_ratio=10), 256 * MEBIBYTE + 1, 1),
        (Limits(max_ratio=1000), 1000 * MEBIBYTE + 1, MEBIBYTE),
    ],
)
def test_what_is_too_much_is_refused(limits: Limits, size: int, packed: int | None) -> None:
    with pytest.raises(ImageError, match=r"^it holds") as caught:
        limits.check("it", size, packed)
    assert "pytest-sandbox load --max-" in caught.value.hint
    limits.check("it", size - 1, packed)


def test_a_stream_that_swells_is_stopped() -> None:
    with (
        unpacked(io.BytesIO(257 * bz2.compress(bytes(MEBIBYTE))), "it", Limits()) as stream,
        pytest.raises(ImageError, match="more than 2000 times as much"),
    ):
        while stream.read(MEBIBYTE):
            pass


def test_a_user_lets_more_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTEST_SANDBOX_HOME", str(tmp_path / "store"))
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        header = tarfile.TarInfo("bin/zeros")
        header.size = 100_000
        tar.addfile(header, io.BytesIO(bytes(header.size)))
    archive = tmp_path / "root.tar.gz"
    archive.write_bytes(gzip.compress(content.getvalue()))
    load = ["load", "-q", "-i", str(archive)]
    assert main([*load, "--max-bytes", "50k"]) == 1
    assert "holds more than the 51200 bytes that it may" in capsys.readouterr().err
    assert main([*load, "--max-bytes", "200k", "--max-ratio", "3000"]) == 0
    assert capsys.readouterr().out.startswith("sha256:")
    with Store(str(tmp_path / "other")) as store:
        with pytest.raises(ImageError, match="more than the 1000 bytes"):
            Images(store).load(str(archive), max_bytes=1000)
        assert Images(store).load(str(archive), max_bytes=200_000, max_ratio=3000)
