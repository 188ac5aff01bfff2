"""What layers and archives are packed by: gzip and zstd, the same bytes each time, and what is damaged is told."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError, UnsupportedError
from pytest_sandbox_runtime.images.packing import blame, packed, sniff, unpacked

KINDS = ("none", "gzip", "zstd")


def pack(data: bytes, kind: str) -> bytes:
    sink = io.BytesIO()
    with packed(sink, kind) as stream:
        stream.write(data)
    return sink.getvalue()


@given(st.binary(), st.sampled_from(KINDS))
def test_what_was_packed_is_unpacked(data: bytes, kind: str) -> None:
    whole = pack(data, kind)
    assert whole == pack(data, kind)
    assert unpacked(io.BytesIO(whole), kind).read() == data
    if kind != "none":
        assert sniff(whole) == kind


@pytest.mark.parametrize(("program", "kind"), [("gzip", "gzip"), ("bzip2", "bzip2"), ("xz", "xz")])
def test_what_other_programs_pack_is_known(program: str, kind: str) -> None:
    whole = subprocess.run([program, "-c"], input=b"hello", capture_output=True, check=True).stdout
    assert sniff(whole) == kind
    assert unpacked(io.BytesIO(whole), kind).read() == b"hello"


def test_several_gzips_one_after_the_other_are_one() -> None:
    assert unpacked(io.BytesIO(gzip.compress(b"a") + gzip.compress(b"b")), "gzip").read() == b"ab"


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@given(data=st.data())
def test_what_is_cut_or_changed_is_an_image_error_or_the_same(kind: str, data: st.DataObject) -> None:
    whole = bytearray(pack(b"hello " * 100, kind))
    cut = data.draw(st.integers(0, len(whole)))
    if data.draw(st.booleans()):
        del whole[cut:]
    elif cut < len(whole):
        whole[cut] ^= data.draw(st.integers(1, 255))
    message = "it is truncated or corrupt: "
    try:
        with blame("it"):
            unpacked(io.BytesIO(whole), kind).read()
    except ImageError as error:
        message = error.message
    assert message.startswith("it is truncated or corrupt: ")


def test_an_error_of_the_disk_is_not_blamed_on_the_data() -> None:
    with pytest.raises(OSError, match="No space"), blame("it"):
        raise OSError(28, "No space left on device")


def test_other_compressions_are_not_written() -> None:
    with pytest.raises(ImageError, match="'xz' is no compression that can be written"):
        pack(b"", "xz")


def test_without_its_module_zstd_is_an_error_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnsupportedError, match="packed by zstd, and this Python has no") as caught:
        unpacked(io.BytesIO(), "zstd")
    assert caught.value.hint == 'pip install "pytest-sandbox[zstd]"'
