"""What a layer hides of those below, in the words of overlayfs."""

from __future__ import annotations

import os

import pytest

from pytest_sandbox_runtime.errors import ImageError
from tests.unit.layers.applied import BASE, Layers, is_opaque, is_whiteout
from tests.unit.tars import directory, member
from tests.unit.trees import listing


def test_a_whiteout_becomes_what_overlayfs_knows(layers: Layers) -> None:
    layers.apply(*BASE)
    upper = layers.apply(directory("etc", 0o751), member("etc/.wh.hosts"), member(".wh.usr"))
    assert listing(upper) == ["etc", "etc/hosts", "usr"]
    assert is_whiteout(upper / "etc/hosts")
    assert is_whiteout(upper / "usr")


def test_an_opaque_directory_gets_the_attribute(layers: Layers) -> None:
    layers.apply(*BASE)
    upper = layers.apply(directory("etc"), member("etc/.wh..wh..opq"), member("etc/new"))
    assert listing(upper) == ["etc", "etc/new"]
    assert is_opaque(upper / "etc")


@pytest.mark.needs("root")
def test_as_root_it_is_the_trusted_one(layers: Layers) -> None:
    layers.apply(*BASE)
    upper = layers.apply(directory("etc"), member("etc/.wh..wh..opq"), user_namespace=False)
    assert [name for name in os.listxattr(upper / "etc") if "overlay" in name] == ["trusted.overlay.opaque"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_whiteout_hides_nothing_of_its_own_layer(order: int, layers: Layers) -> None:
    layers.apply(*BASE)
    members = [member(".wh.etc"), directory("etc"), member("etc/new"), member("usr/.wh..wh..opq"), member("usr/lib")]
    upper = layers.apply(*members[::order] if order == 1 else [members[1], members[2], members[0], *members[:2:-1]])
    assert listing(upper) == ["etc", "etc/new", "usr", "usr/lib"]
    assert is_opaque(upper / "etc")
    assert is_opaque(upper / "usr")
    assert (upper / "usr/lib").is_file()


def test_a_whiteout_and_a_file_of_one_name_are_the_file(layers: Layers) -> None:
    layers.apply(*BASE)
    upper = layers.apply(member("etc/hosts", b"new"), member("etc/.wh.hosts"))
    assert (upper / "etc/hosts").read_bytes() == b"new"


def test_a_whiteout_of_nothing_is_not_made(layers: Layers) -> None:
    # overlayfs would list it in a directory that nothing is merged with.
    layers.apply(*BASE)
    upper = layers.apply(
        directory("new"),
        *(member(f"{name}/.wh.gone") for name in ("new", "etc", "nowhere/at/all", "etc/hosts")),
        directory("etc/apt"),
        member("etc/apt/.wh..wh..opq"),
        member("etc/apt/.wh.sources"),
    )
    assert listing(upper) == ["etc", "etc/apt", "new"]


def test_a_lowest_layer_has_no_whiteouts(layers: Layers) -> None:
    assert listing(layers.apply(member("etc/.wh.hosts"), member(".wh.usr"))) == []


def test_an_opaque_root_hides_all_that_is_below(layers: Layers) -> None:
    layers.apply(*BASE)
    upper = layers.apply(member(".wh..wh..opq"), directory("etc"), member("lib"))
    assert listing(upper) == ["etc", "lib", "usr"]
    assert is_opaque(upper / "etc")
    assert is_whiteout(upper / "usr")


def test_what_aufs_kept_for_itself_is_left_out(layers: Layers) -> None:
    members = [member(".wh..wh.aufs"), directory(".wh..wh.plnk"), member(".wh..wh.plnk/17.3", b"x"), member("file")]
    assert listing(layers.apply(*members)) == ["file"]


@pytest.mark.parametrize("name", [".wh.", "etc/.wh.", ".wh..", "etc/.wh..."])
def test_a_whiteout_of_no_name_is_refused(name: str, layers: Layers) -> None:
    with pytest.raises(ImageError, match="a whiteout of no name") as caught:
        layers.apply(member(name))
    assert repr(name) in caught.value.message


def test_a_member_in_a_whiteout_is_refused(layers: Layers) -> None:
    with pytest.raises(ImageError, match="it lies in a whiteout"):
        layers.apply(member(".wh.etc/file"))
