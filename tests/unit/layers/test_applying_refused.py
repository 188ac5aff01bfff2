"""Layers that are hostile or damaged: nothing is written or hidden outside."""

from __future__ import annotations

import gzip
import os
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError
from tests.unit.layers.applied import BASE, Layers, is_whiteout
from tests.unit.tars import Member, archive, directory, hardlink, member, symlink
from tests.unit.trees import listing


@pytest.mark.parametrize(
    ("words", "members"),
    [
        ("'/etc/passwd' is absolute", [member("/etc/passwd")]),
        ("'/.wh.etc' is absolute", [member("/.wh.etc")]),
        ("'a/../../x' has .. in it", [member("a/../../x")]),
        ("'../.wh.x' has .. in it", [member("../.wh.x")]),
        ("which leads out", [symlink("out", "/"), member("out/file")]),
        ("that leads out", [symlink("out", "../outside"), member("out/file")]),
        ("'/etc/passwd' is absolute", [hardlink("mine", "/etc/passwd")]),
        ("its type is b'V'", [member("label", b"", b"V")]),
    ],
)
def test_a_member_that_leads_out_is_refused_by_name(words: str, members: list[Member], layers: Layers) -> None:
    layers.apply(*BASE)
    before = sorted(os.listdir(layers.place))
    with pytest.raises(ImageError) as caught:
        layers.apply(*members)
    assert words in caught.value.message
    assert sorted(os.listdir(layers.place)) == [*before, "layer-1"]


def test_whiteouts_behind_links_that_lead_out_hide_nothing(layers: Layers) -> None:
    (layers.place / "outside").mkdir()
    (layers.place / "outside/file").write_text("kept")
    upper = layers.apply(symlink("out", "../outside"), member("out/.wh.file"), member("out/.wh..wh..opq"))
    assert listing(upper) == ["out"]
    assert os.listxattr(layers.place / "outside") == []


_NAMES = st.lists(st.sampled_from(["a", "b", ".wh.a", ".wh..wh..opq", "..", ".", "out"]), max_size=4).map("/".join)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
_MEMBERS = st.lists(st.tuples(_NAMES, _KINDS, _NAMES), max_size=8)


@given(_MEMBERS, _MEMBERS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_order_of_members_writes_outside(
    tmp_path_factory: pytest.TempPathFactory, first: list[tuple[str, bytes, str]], second: list[tuple[str, bytes, str]]
) -> None:
    place = tmp_path_factory.mktemp("hostile")
    (place / "out").mkdir()
    (place / "out/a").write_bytes(b"kept")
    layers = Layers(place)
    for names in (first, second):
        members = [member(name, b"", kind, linkname=link, mode=0o755) for name, kind, link in names]
        try:
            layers.apply(*members)
        except ImageError as error:
            assert "cannot write member" in error.message  # noqa: PT017
            break
    lower = set(listing(layers.paths[-1])) if layers.paths else set()
    for path in layers.paths[:-1]:
        assert all(not is_whiteout(found) or str(found.relative_to(path)) in lower for found in path.rglob("*"))
    assert {path.name for path in place.iterdir()} <= {"out", "layer-0", "layer-1"}
    assert listing(place / "out") == ["a"]
    assert (place / "out/a").read_bytes() == b"kept"
    assert (place / "out/a").stat().st_nlink == 1


FUZZED = archive(
    directory("etc", pax_headers={"SCHILY.xattr.user.a": "b"}),
    member("etc/.wh.hosts"),
    member("etc/" + "long" * 40, b"x" * 700),
    member("usr/.wh..wh..opq"),
)


@given(st.lists(st.tuples(st.integers(0, len(FUZZED) - 1), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_changed_bytes_give_a_layer_or_an_image_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], packed: bool
) -> None:
    layer = bytearray(gzip.compress(FUZZED, mtime=0) if packed else FUZZED)
    for at, value in changes:
        layer[at % len(layer)] = value
    layers = Layers(tmp_path_factory.mktemp("damaged"))
    layers.apply(*BASE)
    try:
        layers.apply_bytes(bytes(layer))
    except ImageError as error:
        assert error.hint  # noqa: PT017
