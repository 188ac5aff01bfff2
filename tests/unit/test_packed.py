"""What layers and archives are packed by: gzip and zstd, the same bytes each time, and what is damaged is told."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.compressions import sniff
from pytest_sandbox_runtime.images.packed import packing, unpacked

KINDS = ("none", "gzip", "zstd")


def unpack(whole: bytes) -> bytes:
    with unpacked(io.BytesIO(whole), "it") as stream:
        return stream.read()


def pack(data: bytes, kind: str) -> bytes:
    sink = io.BytesIO()
    with packing(sink, kind) as stream:
        stream.write(data)
    return sink.getvalue()


@given(st.binary(), st.sampled_from(KINDS))
def test_what_was_packed_is_unpacked(data: bytes, kind: str) -> None:
    assume(kind != "none" or sniff(data) == "none")
    whole = pack(data, kind)
    assert whole == pack(data, kind)
    assert unpack(whole) == data
    if kind != "none":
        assert sniff(whole) == kind


@pytest.mark.parametrize(("program", "kind"), [("gzip", "gzip"), ("bzip2", "bzip2"), ("xz", "xz")])
def test_what_other_programs_pack_is_known(program: str, kind: str) -> None:
    whole = subprocess.run([program, "-c"], input=b"hello", capture_output=True, check=True).stdout
    assert sniff(whole) == kind
    assert unpack(whole) == b"hello"


def test_several_gzips_one_after_the_other_are_one() -> None:
    assert unpack(gzip.compress(b"a") + gzip.compress(b"b")) == b"ab"


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
        unpack(bytes(whole))
    except ImageError as error:
        message = error.message
    assert message.startswith("it is truncated or corrupt: ")


def test_an_error_of_the_disk_is_not_blamed_on_the_data() -> None:
    with pytest.raises(OSError, match="No space"), unpacked(io.BytesIO(), "it"):
        raise OSError(28, "No space left on device")


def test_other_compressions_are_not_written() -> None:
    with pytest.raises(ImageError, match="'xz' is no compression that can be written"):
        pack(b"", "xz")


def test_without_its_module_zstd_is_an_error_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    for act, argument in ((unpack, (b"\x28\xb5\x2f\xfd",)), (pack, (b"", "zstd"))):
        with pytest.raises(ImageError, match="by zstd") as caught:
            act(*argument)
        assert caught.value.hint.startswith('pip install "pytest-sandbox[zstd]"')
