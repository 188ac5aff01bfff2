"""Digests: what is one, and that data is measured as it streams by."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.digest import (
    Digester,
    DigestingReader,
    check_digest,
    digest_of,
    hex_of,
    is_any_digest,
    pour,
)

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


def test_the_digest_of_nothing_is_the_known_one() -> None:
    assert digest_of(b"") == EMPTY
    assert Digester().digest == EMPTY


@given(HEX)
def test_sha256_and_64_digits_are_a_digest(digits: str) -> None:
    assert check_digest(f"sha256:{digits}") == f"sha256:{digits}"
    assert hex_of(f"sha256:{digits}") == digits


@given(st.one_of(st.text(), st.none(), st.integers(), st.binary(), HEX, HEX.map(lambda text: f"sha256:{text}\n")))
def test_anything_else_is_none(text: object) -> None:
    with pytest.raises(ImageError, match="is no digest that can be used"):
        check_digest(text)


@pytest.mark.parametrize(
    "text",
    [
        EMPTY.upper(),
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY.replace(":", ""),
        EMPTY.replace("e3", "E3"),
        " " + EMPTY,
        "sha256:" + "g" * 64,
    ],
)
def test_what_is_nearly_a_digest_is_none(text: str) -> None:
    with pytest.raises(ImageError, match="it is not sha256: and 64 of 0-9 and a-f"):
        check_digest(text)


def test_another_algorithm_is_told_to_be_one() -> None:
    with pytest.raises(ImageError, match="sha512 is not supported"):
        check_digest("sha512:" + "0" * 128)


@given(st.text())
def test_any_text_can_be_asked_whether_it_is_a_digest(text: str) -> None:
    assert not is_any_digest(text)


@pytest.mark.parametrize(("algorithm", "length"), [("sha256", 64), ("sha384", 96), ("sha512", 128)])
def test_references_may_have_longer_digests(algorithm: str, length: int) -> None:
    assert is_any_digest(f"{algorithm}:{'a' * length}")
    assert not is_any_digest(f"{algorithm}:{'a' * (length - 1)}")
    assert not is_any_digest(f"{algorithm}:{'A' * length}")


@given(st.lists(st.binary()))
def test_pieces_are_measured_as_the_whole(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    digester = Digester()
    for piece in pieces:
        digester.update(memoryview(piece))
    assert digester.digest == f"sha256:{hashlib.sha256(whole).hexdigest()}"
    assert digester.size == len(whole)
    digester.check(digest_of(whole), len(whole), "it")


@given(st.binary(), st.integers(min_value=1, max_value=50))
def test_a_reader_measures_what_is_read(data: bytes, size: int) -> None:
    reader = DigestingReader(io.BytesIO(data), "it")
    head = reader.read(size)
    assert head == data[:size]
    assert reader.seen.digest == digest_of(data[:size])
    reader.drain()
    assert (reader.seen.digest, reader.seen.size) == (digest_of(data), len(data))


def test_a_wrong_size_or_digest_is_told_with_both() -> None:
    digester = Digester()
    digester.update(b"abc")
    with pytest.raises(ImageError, match="the blob has 3 bytes, and should have 4"):
        digester.check(None, 4, "the blob")
    with pytest.raises(
        ImageError, match=f"the blob has the digest {digest_of(b'abc')}, and should have {EMPTY}"
    ) as caught:
        digester.check(EMPTY, 3, "the blob")
    assert "fetch or make it again" in caught.value.hint


@given(st.binary(max_size=100), st.integers(min_value=0, max_value=100))
def test_no_more_is_poured_than_may_be(data: bytes, limit: int) -> None:
    sink = io.BytesIO()
    if len(data) > limit:
        with pytest.raises(ImageError, match=f"it holds more than the {limit} bytes that it may"):
            pour(io.BytesIO(data), sink.write, limit=limit, what="it")
    else:
        pour(io.BytesIO(data), sink.write, limit=limit, what="it")
        assert sink.getvalue() == data
