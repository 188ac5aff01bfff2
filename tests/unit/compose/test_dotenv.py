"""Files of variables, in the specification's format and raw."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_sandbox_runtime.compose.dotenv import read_variables
from pytest_sandbox_runtime.errors import ComposeError


def variables(text: str, around: dict[str, str] | None = None, *, raw: bool = False) -> dict[str, str]:
    Path(".env").write_text(text, encoding="utf-8")
    return read_variables(".env", around or {}, raw=raw)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A =b", "b"),
        ("A= b ", "b"),
        ("  A=b", "b"),
        ("export A=b", "b"),
        ("\texport\tA=b", "b"),
        ("A: b", "b"),
        ("A: x=b", "x=b"),
        ("A=1:b", "1:b"),
        ("A=", ""),
        ("A=b=c=", "b=c="),
        ("A=b # comment", "b"),
        ("A=b #", "b"),
        ("A=b#c", "b#c"),
        ("A=#c", ""),
        ("A=it's", "it's"),
        ("A=b\\tc", "b\\tc"),
        ('A="b"', "b"),
        ('A="b # c" # d', "b # c"),
        ('A="b"#c', "b"),
        ('A="b\\nc\\td\\\\"', "b\nc\td\\"),
        ('A="\\"b\\""', '"b"'),
        ('A="\\0123"', "S"),
        ('A="\\x07"', "\\x07"),
        ('A="b\nc"', "b\nc"),
        ("A='b'", "b"),
        ("A='b\\n$x'", "b\\n$x"),
        ("A='it\\'s'", "it's"),
        ("A='\"b\"'", '"b"'),
        ("A=\"'b'\"", "'b'"),
        ("A=$x", "1"),
        ("A=${x}${none}", "1"),
        ('A="${none:-d} $x"', "d 1"),
        ('A="\\$x"', "$x"),
        ("A=$$x", "$x"),
        ("B=2\nA=$B", "2"),
        ("A=1\nA=2", "2"),
        ("\ufeffA=b", "b"),
        ("\n\n# A=c\n  # A=d\nA=b\n\n", "b"),
        ("A=b\r\nB=c\r\n", "b"),
    ],
)
def test_a_line_sets_a_variable(line: str, value: str) -> None:
    assert variables(line, {"x": "1"})["A"] == value


def test_a_name_alone_is_what_is_around_has() -> None:
    assert variables("A\nB\nC=c", {"A": "a"}) == {"A": "a", "C": "c"}


def test_what_is_around_comes_before_what_the_file_says() -> None:
    assert variables("B=file\nA=$B", {"B": "around"}) == {"B": "file", "A": "around"}


def test_names_may_have_dots_and_brackets() -> None:
    assert variables("a.b-c[0]=d") == {"a.b-c[0]": "d"}


def test_raw_values_stay_as_they_are() -> None:
    text = "# comment\n\nA=\"b\" # c\nB='$x'\nC\nD=\n"
    assert variables(text, {"C": "c"}, raw=True) == {"A": '"b" # c', "B": "'$x'", "C": "c", "D": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=b\nlol$wut", ".env:2:1: 'lol$wut' sets no variable\n  hint: lines are NAME=value, or comments behind a #"),
        ("A b=c", ".env:1:1: 'A b=c' sets no variable\n  hint: lines are NAME=value, or comments behind a #"),
        ('A="b', ".env:1:1: the quote is never closed\n  hint: write \\ before a quote within a value"),
        ("\nA='b\\'", ".env:2:1: the quote is never closed\n  hint: write \\ before a quote within a value"),
        ('A="b" c', ".env:1:1: something follows the closing quote\n  hint: put the whole value in the quotes"),
        ("A=${b", ".env:1:1: '${b' has no closing brace\n  hint: write $$ for a dollar"),
    ],
)
def test_a_line_that_sets_nothing_is_said(text: str, message: str) -> None:
    with pytest.raises(ComposeError) as caught:
        variables(text)
    assert str(caught.value) == message
