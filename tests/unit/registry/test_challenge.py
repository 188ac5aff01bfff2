"""What servers ask for, as they write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.images.registry.challenge import Challenge, parse_challenges

TOKENS = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
CHALLENGES = st.builds(
    lambda scheme, parameters: Challenge(scheme.lower(), tuple(sorted(parameters.items()))),
    TOKENS,
    st.dictionaries(TOKENS.map(str.lower), VALUES, min_size=1, max_size=4),
)


def test_a_bearer_challenge_says_where_tokens_are_given_out() -> None:
    (one,) = parse_challenges(
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a:b:pull,push"'
    )
    assert one.scheme == "bearer"
    assert one.get("realm") == "https://auth.docker.io/token"
    assert one.get("service") == "registry.docker.io"
    assert one.get("scope") == "a:b:pull,push"
    assert one.get("error") == ""


@pytest.mark.parametrize(
    ("header", "schemes"),
    [
        ('Basic realm="x"', ["basic"]),
        ("Basic", ["basic"]),
        ("Negotiate, Basic realm=x", ["negotiate", "basic"]),
        ("Negotiate YII=, Bearer realm=x", ["negotiate", "bearer"]),
        ('Basic realm="a, Bearer realm=b", Bearer realm="c"', ["basic", "bearer"]),
        ("  ,, bearer Realm = x ,service=y,basic", ["bearer", "basic"]),
        ('Bearer realm="unclosed', ["bearer"]),
        ("", []),
        ("=", []),
        ("\xe9", []),
    ],
)
def test_several_challenges_stand_in_one_header(header: str, schemes: list[str]) -> None:
    assert [one.scheme for one in parse_challenges(header)] == schemes


@given(st.lists(CHALLENGES, max_size=3))
def test_what_is_written_is_read(challenges: list[Challenge]) -> None:
    def written(one: Challenge) -> str:
        pairs = (name + '="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for name, value in one.parameters)
        return f"{one.scheme} {', '.join(pairs)}"

    assert list(parse_challenges(", ".join(map(written, challenges)))) == challenges


@given(st.text(max_size=200))
def test_no_header_is_an_error(header: str) -> None:
    parse_challenges(header)


def test_a_header_that_never_ends_is_read_soon() -> None:
    parse_challenges('a="' * 100_000)
    parse_challenges("a" * 1_000_000)
    parse_challenges('Bearer a="' + "\\" * 100_000)
