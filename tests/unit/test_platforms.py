"""Platforms: this machine's and named ones, and which of an index's images to take."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.manifest import OCI_MANIFEST, Descriptor, Index
from pytest_sandbox_runtime.images.platforms import Platform, best


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm/v7", "linux/arm"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("armel", "linux/arm/v6"),
        ("armhf", "linux/arm"),
        ("i686", "linux/386"),
        ("macos/arm64", "darwin/arm64"),
        ("LINUX/S390X", "linux/s390x"),
    ],
)
def test_a_platform_is_read_in_the_words_of_go(text: str, expected: str) -> None:
    assert str(Platform.parse(text)) == expected


def test_a_system_alone_means_this_machines_architecture() -> None:
    assert Platform.parse("linux") == Platform.host()
    assert Platform.parse("windows").architecture == Platform.host().architecture


def test_this_machine_is_what_uname_says() -> None:
    expected = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
    assert expected is None or Platform.host().architecture == expected


@given(st.text())
def test_any_text_is_a_platform_or_an_error(text: str) -> None:
    message = "is no platform"
    try:
        Platform.parse(text)
    except ImageError as error:
        message = error.message
    assert "is no platform" in message


def choice(wanted: str | None, *offered: str | None) -> str | None:
    platforms = [Platform.parse(one) if one else None for one in offered]
    number = best(Platform.parse(wanted) if wanted else None, platforms)
    return None if number is None else offered[number]


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        ("linux/amd64", ("linux/arm64", "linux/amd64"), "linux/amd64"),
        ("linux/amd64", ("linux/386", "linux/arm64"), None),
        ("linux/amd64", ("windows/amd64",), None),
        ("linux/amd64", ("linux/amd64/v3", "linux/amd64"), "linux/amd64"),
        ("linux/amd64/v3", ("linux/amd64", "linux/amd64/v2", "linux/amd64/v4"), "linux/amd64/v2"),
        ("linux/arm/v7", ("linux/arm/v5", "linux/arm/v6", "linux/arm64"), "linux/arm/v6"),
        ("linux/arm/v6", ("linux/arm/v7", "linux/arm/v5"), "linux/arm/v5"),
        ("linux/arm/v6", ("linux/arm/v7",), None),
        ("linux/arm64", ("linux/arm64/v8",), "linux/arm64/v8"),
        ("linux/arm64", ("linux/arm/v7",), None),
        ("linux/amd64", (None, "linux/arm64"), None),
        ("linux/amd64", ("linux/amd64", None), "linux/amd64"),
    ],
)
def test_the_best_of_several_is_taken(wanted: str, offered: tuple[str | None, ...], expected: str | None) -> None:
    assert choice(wanted, *offered) == expected


def test_one_that_does_not_say_its_platform_is_taken_last() -> None:
    platforms = [Platform.parse("linux/s390x"), None]
    assert best(Platform.parse("linux/amd64"), platforms) == 1


@pytest.mark.needs("x86_64")
def test_this_machine_takes_its_32_bit_sister_if_there_is_no_other() -> None:
    assert choice(None, "linux/386", "linux/amd64") == "linux/amd64"
    assert choice(None, "linux/386", "linux/arm64") == "linux/386"


def test_an_index_without_the_platform_says_which_it_has() -> None:
    def of(platform: str) -> Descriptor:
        return Descriptor(OCI_MANIFEST, "sha256:" + "0" * 64, 1, Platform.parse(platform))

    index = Index((of("linux/s390x"), of("linux/arm/v6")))
    with pytest.raises(ImageError, match="not for linux/amd64, but for linux/arm/v6, linux/s390x"):
        index.choose(Platform.parse("linux/amd64"))
    with pytest.raises(ImageError, match="but for none"):
        Index().choose()
