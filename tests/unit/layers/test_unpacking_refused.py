"""Archives that are hostile, damaged or none at all: nothing is written outside, and errors say what it was."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import tarfile
from typing import IO, TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.layer import apply_layer as unpack
from tests.unit.tars import Member, archive, directory, hardlink, member, stream_of, symlink
from tests.unit.trees import picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def assert_refused(target: Path, words: str, *members: Member) -> None:
    outside = target.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"kept")
    with pytest.raises(ImageError) as caught:
        unpack(stream_of(*members), str(target))
    assert words in caught.value.message
    assert "the archive: " in caught.value.message
    assert caught.value.hint
    assert sorted(path.name for path in target.parent.iterdir()) == ["outside", "target"]
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_bytes() == b"kept"
    assert (outside / "file").stat().st_nlink == 1


def test_a_directory_replaced_by_a_link_is_not_entered_any_more(target: Path) -> None:
    # Going by way of s opens a/b and leaves it empty, so that it can be replaced.
    members = [directory("a/b"), symlink("s", "a/b/.."), member("s/file"), symlink("a/b", "../../outside")]
    assert_refused(target, "member 'a/b/mine': it lies behind a symbolic link", *members, member("a/b/mine"))


@pytest.mark.parametrize(
    ("words", "members"),
    [
        ("member '/etc/passwd': '/etc/passwd' is absolute", [member("/etc/passwd")]),
        ("member '../outside/file': '../outside/file' has .. in it", [member("../outside/file")]),
        ("member 'a/../../x': 'a/../../x' has .. in it", [directory("a/../../x")]),
        ("behind the symbolic link 'out'", [symlink("out", "/"), member("out/file")]),
        ("a symbolic link that leads out", [symlink("out", "../outside"), member("out/file", data=b"gone")]),
        ("a symbolic link that leads out", [symlink("out", "../outside"), directory("out/below")]),
        ("a symbolic link that leads out", [directory("a"), symlink("a/b", "../.."), symlink("a/b/x", "y")]),
        ("'../outside/file' has .. in it", [hardlink("mine", "../outside/file")]),
        ("'/etc/passwd' is absolute", [hardlink("mine", "/etc/passwd")]),
        ("a symbolic link that leads out", [symlink("out", "../outside"), hardlink("mine", "out/file")]),
        ("which leads out", [symlink("loop", "loop"), member("loop/file")]),
        ("it lies below 'file', which is no directory", [member("file"), member("file/below")]),
        ("its target 'later' does not come before it", [hardlink("mine", "later"), member("later")]),
        ("a hard link to itself", [member("mine"), hardlink("mine", "mine")]),
        ("a hard link to the root directory", [hardlink("mine", ".")]),
        ("it would replace the root directory", [symlink(".", "/")]),
        ("its type is b'V'", [member("label", kind=b"V")]),
    ],
)
def test_a_member_that_leads_out_is_refused_by_name(words: str, members: list[Member], target: Path) -> None:
    assert_refused(target, words, *members)


def test_a_directory_with_files_is_not_replaced(target: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot write member 'd': Directory not empty"):
        unpack(stream_of(directory("d"), member("d/file"), symlink("d", "x")), str(target))


def test_a_name_that_no_file_can_have_is_an_error(target: Path) -> None:
    with pytest.raises(ImageError, match="File name too long") as caught:
        unpack(stream_of(member("n" * 300)), str(target))
    assert "member 'nnn" in caught.value.message


def refusal(source: bytes | IO[bytes], target: Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        unpack(io.BytesIO(source) if isinstance(source, bytes) else source, str(target))
    return caught.value


@pytest.mark.parametrize("content", [b"", b"hello\n" * 500, b"\x7fELF" + bytes(60), bytes(100), os.urandom(5000)])
def test_what_is_no_archive_is_told_so(content: bytes, target: Path) -> None:
    error = refusal(content, target)
    assert "is no tar" in error.message or "truncated or corrupt" in error.message
    assert error.hint


def test_the_hint_names_what_can_be_read(tmp_path: Path, target: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello\n" * 500)
    with pytest.raises(ImageError) as caught:
        unpack(text, str(target))
    assert caught.value.message.startswith(f"{text} is no tar: ")
    assert caught.value.hint == "it has to be a tar, plain or packed by gzip, bzip2, xz or zstd"


def test_zstd_is_named_where_it_cannot_be_read(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    error = refusal(b"\x28\xb5\x2f\xfd" + bytes(100), target)
    assert "packed by zstd" in error.message
    assert "unzstd" in error.hint


def test_an_archive_that_is_not_there_is_an_error_with_its_path(tmp_path: Path, target: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read the archive .*/none\.tar: No such file or directory"):
        unpack(tmp_path / "none.tar", str(target))


def _small() -> bytes:
    return archive(directory("a"), member("a/file", data=b"x" * 1500), member("\xe9" * 90, data=b"y"))


def _end_of(plain: bytes) -> int:
    return len(plain.rstrip(b"\0")) // 512 * 512 + 512


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_cut_anywhere_is_truncated(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    packed = pack(_small())
    end = _end_of(packed) + 512 if pack is bytes else len(packed)
    for cut in range(600 if pack is bytes else 20, end, 64 if pack is bytes else 7):
        target = tmp_path / str(cut)
        target.mkdir()
        error = refusal(packed[:cut], target)
        assert "truncated or corrupt" in error.message or "is no tar" in error.message
        assert error.hint


def test_a_header_damaged_in_the_middle_is_not_taken_for_the_end(target: Path) -> None:
    plain = bytearray(archive(member("one", data=b"1"), member("two", data=b"2"), member("three")))
    plain[1024 + 3] ^= 1
    error = refusal(bytes(plain), target)
    assert error.message.endswith("truncated or corrupt: there is no header before byte 1536")
    assert "fetch or make it again" in error.hint


def test_a_wrong_checksum_of_the_packed_stream_is_found(target: Path) -> None:
    packed = bytearray(gzip.compress(_small()))
    packed[-6] ^= 1
    assert "CRC" in refusal(bytes(packed), target).message


def test_more_than_is_allowed_does_not_come_out(target: Path) -> None:
    bomb = io.BytesIO(gzip.compress(archive(member("zeros", data=bytes(9 << 20)))))
    with pytest.raises(ImageError, match="holds more than the 1000000 bytes that it may"):
        unpack(bomb, str(target), max_bytes=1_000_000)
    assert (target / "zeros").stat().st_size <= 1_000_000


def test_a_header_that_claims_to_be_huge_is_not_read(target: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 7 << 30
    block = header.tobuf(tarfile.GNU_FORMAT)
    assert "a header of 7516192768 bytes" in refusal(block + bytes(1 << 16), target).message


def test_a_negative_size_is_corrupt(target: Path) -> None:
    header = tarfile.TarInfo("x")
    header.size = -4096
    block = header.tobuf(tarfile.GNU_FORMAT)
    assert "truncated or corrupt" in refusal(member_block("first") + block + bytes(4096), target).message


def member_block(name: str) -> bytes:
    return tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("holes", ["0,-5", "9,1,3,1", "0,99"])
def test_an_impossible_map_of_holes_is_refused(holes: str, target: Path) -> None:
    headers = {"GNU.sparse.map": holes, "GNU.sparse.size": "20"}
    stream = stream_of(member("disk", data=b"0123456789", pax_headers=headers))
    with pytest.raises(ImageError, match="its map of holes is impossible"):
        unpack(stream, str(target))


def test_a_directory_with_files_is_no_target(target: Path) -> None:
    (target / "here").touch()
    with pytest.raises(ImageError, match="into a directory that has files"):
        unpack(stream_of(), str(target))


_NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "outside", ""]), max_size=4).map("/".join)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@given(st.lists(st.tuples(_NAMES, _KINDS, _NAMES), max_size=8))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_order_of_members_writes_outside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, str]]
) -> None:
    place = tmp_path_factory.mktemp("hostile")
    (place / "target").mkdir()
    (place / "outside").mkdir()
    (place / "outside/a").write_bytes(b"kept")
    before = picture(place / "outside")
    parts = [member(name, kind=kind, linkname=link, mode=0o755) for name, kind, link in members]
    try:
        unpack(stream_of(*parts), str(place / "target"))
    except ImageError as error:
        assert "cannot write member" in error.message  # noqa: PT017
    assert sorted(path.name for path in place.iterdir()) == ["outside", "target"]
    assert picture(place / "outside") == before
    assert (place / "outside/a").stat().st_nlink == 1


@given(st.integers(0, 3 * 512 - 1), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_in_the_headers_gives_a_tree_or_an_image_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    plain = bytearray(_small())
    plain[at] = value
    try:
        unpack(io.BytesIO(plain), str(tmp_path_factory.mktemp("damaged")))
    except ImageError as error:
        assert error.hint  # noqa: PT017
