"""References: as Docker reads them. docker-image-py, a port of Docker's own code, is the oracle."""

from __future__ import annotations

import pickle
from importlib import import_module
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.reference import Reference

# It has no types, and mypy runs where it is not installed.
oracle: Any = import_module("docker_image.reference")
digests: Any = import_module("docker_image.digest")

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("library/debian", "docker.io/library/debian", "debian"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/debian", "docker.io/library/debian", "debian"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("owner/name:v1.2_3-rc", "docker.io/owner/name:v1.2_3-rc", "owner/name:v1.2_3-rc"),
        ("ghcr.io/a/b:tag@" + DIGEST, "ghcr.io/a/b:tag@" + DIGEST, "ghcr.io/a/b:tag@" + DIGEST),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost", "docker.io/library/localhost", "localhost"),
        ("localhost:5000/x", "localhost:5000/x", "localhost:5000/x"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("Registry/x", "Registry/x", "Registry/x"),
        ("EXAMPLE.com:80/a", "EXAMPLE.com:80/a", "EXAMPLE.com:80/a"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        ("[2001:db8::1]/a/b:c", "[2001:db8::1]/a/b:c", "[2001:db8::1]/a/b:c"),
        ("a__b/c.d-e---f", "docker.io/a__b/c.d-e---f", "a__b/c.d-e---f"),
        ("a@" + DIGEST, "docker.io/library/a@" + DIGEST, "a@" + DIGEST),
        ("a" * 63, "docker.io/library/" + "a" * 63, "a" * 63),
    ],
)
def test_a_reference_is_read_as_docker_does(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert (reference.canonical, reference.familiar) == (canonical, familiar)
    assert Reference.parse(reference.canonical) == reference
    assert Reference.parse(reference.familiar) == reference
    assert pickle.loads(pickle.dumps(reference)) == reference


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r"it is not \[DOMAIN"),
        ("Debian", "the repository's name must be lower-case"),
        ("ghcr.io/A/b:tag", "the repository's name must be lower-case"),
        ("a" * 64, "64 hexadecimal digits are an identifier"),
        ("debian:", r"it is not \[DOMAIN"),
        ("debian:.x", r"it is not \[DOMAIN"),
        ("debian:" + "x" * 129, r"it is not \[DOMAIN"),
        ("debian@", r"it is not \[DOMAIN"),
        ("debian@sha256:abc", r"it is not \[DOMAIN"),
        ("debian@sha256:" + "a" * 63, "is no digest"),
        ("debian@md5:" + "a" * 32, "is no digest"),
        ("a//b", r"it is not \[DOMAIN"),
        ("/a", r"it is not \[DOMAIN"),
        ("a/", r"it is not \[DOMAIN"),
        ("a b", r"it is not \[DOMAIN"),
        ("-a", r"it is not \[DOMAIN"),
        ("a..b", r"it is not \[DOMAIN"),
        ("a___b", r"it is not \[DOMAIN"),
        ("http://debian", r"it is not \[DOMAIN"),
        ("x.io:port/a", r"it is not \[DOMAIN"),
        ("debian:12\n", r"it is not \[DOMAIN"),
        ("debian:tág", r"it is not \[DOMAIN"),
        ("x.io/" + "a" * 256, "has more than 255 characters"),
    ],
)
def test_what_is_none_is_told_why(text: str, why: str) -> None:
    with pytest.raises(ImageError, match=why) as caught:
        Reference.parse(text)
    assert "debian:12" in caught.value.hint


def test_the_longest_name_and_tag_are_read() -> None:
    reference = Reference.parse(f"x.io/{'a' * 255}:{'t' * 128}")
    assert (len(reference.path), len(reference.tag or "")) == (255, 128)


def test_the_default_tag_is_for_what_has_neither_tag_nor_digest() -> None:
    assert Reference.parse("debian").with_default_tag().familiar == "debian:latest"
    assert Reference.parse("debian:12").with_default_tag().familiar == "debian:12"
    assert Reference.parse("debian@" + DIGEST).with_default_tag().tag is None
    assert Reference.parse("debian:12").with_digest(DIGEST).familiar == f"debian:12@{DIGEST}"


def by_oracle(text: str) -> tuple[str, str] | None:
    try:
        reference = oracle.Reference.parse_normalized_named(text)
    except (oracle.InvalidReference, digests.InvalidDigest):
        return None
    canonical = f"{reference['name']}{':' + reference['tag'] if reference['tag'] else ''}"
    # Asked of the name alone: its familiar() fails on whatever has a digest.
    familiar = oracle.Reference.parse_normalized_named(reference["name"]).familiar_name()
    return canonical + (f"@{reference['digest']}" if reference["digest"] else ""), familiar


def by_us(text: str) -> tuple[str, str] | None:
    try:
        reference = Reference.parse(text)
    except ImageError:
        return None
    return reference.canonical, reference.familiar_name


PART = st.text("ab09._-", min_size=1, max_size=6)
DOMAIN = st.sampled_from(
    [
        "",
        "docker.io/",
        "index.docker.io/",
        "localhost/",
        "localhost:5/",
        "x.io/",
        "X/",
        "[::1]/",
        "[::1]:5/",
        "[zz]/",
        "x:y/",
        "library/",
        "1.2.3.4:5/",
        "a-.io/",
    ]
)
SUFFIX = st.sampled_from(
    [
        "",
        ":t",
        ":T.1-_",
        ":",
        "@" + DIGEST,
        ":t@" + DIGEST,
        "@sha256:00",
        "@sha512:" + "0" * 128,
        "@" + DIGEST.upper(),
        ":a:b",
    ]
)
NEAR = st.builds(
    lambda domain, parts, suffix: domain + "/".join(parts) + suffix,
    DOMAIN,
    st.lists(PART, min_size=1, max_size=3),
    SUFFIX,
)


@given(st.one_of(NEAR, st.text("abAB01:/@._-[]%", max_size=20), st.text(max_size=10)))
@example("library/library/a")
@example("docker.io/library/library/a")
@example("index.docker.io/library/a")
@example("a" * 64)
@example("a" * 65)
def test_every_text_is_read_as_the_oracle_reads_it(text: str) -> None:
    if not text.endswith("\n"):  # there Python's $ matches before the line end, and Go's does not
        assert by_us(text) == by_oracle(text)


@given(NEAR)
def test_what_was_read_is_read_the_same_again(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except ImageError:
        return
    assert Reference.parse(reference.canonical) == reference
