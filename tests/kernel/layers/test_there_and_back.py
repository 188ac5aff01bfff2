"""What is seen over a layer that was written and applied is what was seen in the first place."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from tests.kernel.layers.acts import ACTS, Act, Picture, carry_out, picture
from tests.kernel.layers.overlays import applied, in_private_mounts, stack, view, written

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.needs("overlayfs")

AS_USER = pytest.mark.parametrize(
    "as_user", [pytest.param(False, marks=pytest.mark.needs("root")), True], ids=["root", "userxattr"]
)


def there_and_back(
    base: str, user: bool, image: Sequence[Act], first: Sequence[Act], second: Sequence[Act]
) -> tuple[list[tuple[Picture, Picture]], list[tuple[bytes, bytes]]]:
    """Make an image of three layers by overlays; write and apply each, over what was applied before.

    Return what is seen in the first place and afterwards, and each layer as it is written first and again: from the
    overlay over the applied layers, on which the same was done.
    """
    bottom = f"{base}/bottom"
    os.mkdir(bottom)
    carry_out(bottom, image)
    copies = [applied(base, "copy", written(bottom, (), user=user), (), user=user)]
    pictures = [(picture(bottom), picture(view(base, "view", copies, user=user)))]
    layers = []
    for name, acts in (("first", first), ("second", second)):
        upper, merged = stack(base, name, copies, user=user)
        carry_out(merged, acts)
        # Seen anew: without root, a file that was linked since has two inode numbers as long as it is remembered.
        before = picture(view(base, f"{name}-before", [upper, *copies], user=user))
        layer = written(upper, copies, user=user)
        again, merged_again = stack(base, f"{name}-again", copies, user=user)
        carry_out(merged_again, acts)
        layers.append((layer, written(again, copies, user=user)))
        copies = [applied(base, f"{name}-copy", layer, copies, user=user), *copies]
        pictures.append((before, picture(view(base, f"{name}-view", copies, user=user))))
    return pictures, layers


def assert_kept(as_user: bool, *acts: Sequence[Act]) -> list[bytes]:
    pictures, layers = in_private_mounts(there_and_back, as_user, *acts, as_user=as_user)
    for before, after in pictures:
        assert after == before
    for layer, again in layers:
        assert layer == again
    return [layer for layer, _ in layers]


def names_in(layer: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return tar.getnames()


IMAGE: list[Act] = [
    *(("mkdir", name, "") for name in ("a", "a/b", "c")),
    *(("write", name, "old") for name in ("a/a", "a/b/a", "a/b/b", "b", "c/a")),
    ("link", "c/a", "c/b"),
    ("age", "c", ""),
]


@AS_USER
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(image=ACTS, first=ACTS, second=ACTS)
def test_what_was_seen_is_seen_again(as_user: bool, image: list[Act], first: list[Act], second: list[Act]) -> None:
    assert_kept(as_user, [*IMAGE, *image], first, second)


@AS_USER
def test_what_is_gone_is_a_whiteout_and_what_is_as_before_is_left_out(as_user: bool) -> None:
    acts: list[Act] = [("unlink", "b", ""), ("open", "a/a", ""), ("write", "a/b/a", "new"), ("whole", "c", "")]
    layer, _ = assert_kept(as_user, IMAGE, acts, [])
    assert names_in(layer) == [".wh.b", "a", "a/b", "a/b/a"]


@AS_USER
def test_a_directory_made_again_says_what_is_gone_and_not_how(as_user: bool) -> None:
    acts: list[Act] = [("replace", "a", ""), ("mkdir", "a/b", ""), ("write", "a/b/c", "new")]
    layer, _ = assert_kept(as_user, IMAGE, acts, [])
    assert names_in(layer) == ["a", "a/.wh.a", "a/b", "a/b/.wh.a", "a/b/.wh.b", "a/b/c"]
    removed: list[Act] = [("unlink", "a/a", ""), ("unlink", "a/b/a", ""), ("unlink", "a/b/b", "")]
    assert assert_kept(as_user, IMAGE, [*removed, ("write", "a/b/c", "new")], [])[0] == layer


@AS_USER
def test_nothing_changed_is_an_empty_layer(as_user: bool) -> None:
    layer, _ = assert_kept(as_user, IMAGE, [("open", "a/a", ""), ("whole", "a/b", "")], [])
    assert layer == bytes(1024)


@AS_USER
def test_a_copy_of_one_of_two_names_is_a_file_of_its_own(as_user: bool) -> None:
    layer, _ = assert_kept(as_user, IMAGE, [("open", "c/a", "")], [])
    assert names_in(layer) == ["c", "c/a"]
