"""Locks: what is pinned, added and renewed, and the file that holds it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox.locking import parse, text_of
from pytest_sandbox_runtime import Image
from pytest_sandbox_runtime.images.lock import IMAGES, PACKAGES, Lock
from pytest_sandbox_runtime.images.pinning import pinned_packages
from pytest_sandbox_runtime.specs import Debian

NAME = (IMAGES, "docker.io/library/debian:12")
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)
NAMES = st.from_regex(r"[a-z0-9.]{1,20}(:[0-9]{1,5})?/[a-z0-9/_-]{1,40}:[a-zA-Z0-9._-]{1,20}", fullmatch=True)


def never() -> str:
    raise AssertionError("nobody is to be asked")


def test_a_pin_is_used_and_nobody_asked() -> None:
    lock = Lock({NAME: "old"})
    assert lock.meaning(NAME, never) == "old"
    assert lock.meaning((IMAGES, "other"), never) is None
    assert (lock.used, lock.unpinned, lock.moved) == ({NAME: "old"}, {(IMAGES, "other")}, {})


@pytest.mark.parametrize(
    ("words", "meaning", "moved", "after"),
    [
        ({"adds": True}, "old", {NAME: "new"}, {NAME: "old", (IMAGES, "rest"): "kept"}),
        ({"renews": True}, "new", {}, {NAME: "new"}),
    ],
)
def test_what_has_moved_is_told_or_taken(
    words: dict[str, bool], meaning: str, moved: dict[object, str], after: dict[object, str]
) -> None:
    lock = Lock({NAME: "old", (IMAGES, "rest"): "kept"}, **words)
    assert lock.meaning(NAME, lambda: "new") == lock.meaning(NAME, never) == meaning
    assert (lock.moved, lock.after()) == (moved, after)


def test_what_nobody_knows_is_no_pin() -> None:
    lock = Lock({}, adds=True)
    assert lock.meaning(NAME, lambda: None) is None
    assert lock.after() == {}


def test_packages_are_those_of_the_day_that_is_locked() -> None:
    base, day = Image.debian("bookworm").base, "20260101T000000Z"
    assert isinstance(base, Debian)
    lock = Lock({(PACKAGES, "bookworm"): day}, adds=True)
    assert pinned_packages(base, lock).snapshot == day
    assert lock.moved == {}
    new = pinned_packages(base, Lock({(PACKAGES, "bookworm"): day}, renews=True)).snapshot
    assert new is not None
    assert new > day
    said = Image.debian("bookworm", snapshot="20250101T000000Z").base
    assert isinstance(said, Debian)
    assert pinned_packages(said, lock) == said
    assert pinned_packages(base, Lock({})) == base


@given(
    st.dictionaries(NAMES, DIGESTS),
    st.dictionaries(st.sampled_from(["bookworm", "noble"]), st.just("20260101T000000Z")),
)
def test_what_is_written_is_read(images: dict[str, str], packages: dict[str, str]) -> None:
    pins = {(IMAGES, name): value for name, value in images.items()}
    pins |= {(PACKAGES, name): value for name, value in packages.items()}
    assert parse(text_of(pins)) == pins


def test_the_file_is_sorted_a_name_a_line() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    text = text_of({(PACKAGES, "bookworm"): "20260101T000000Z", (IMAGES, "b:1"): two, (IMAGES, "a:1"): one})
    assert text.partition("\n\n")[2] == (
        f'[images]\n"a:1" = "{one}"\n"b:1" = "{two}"\n\n[packages]\n"bookworm" = "20260101T000000Z"\n'
    )
