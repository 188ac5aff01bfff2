"""YAML 1.2 with the octal numbers of YAML 1.1, as Compose reads it."""

from __future__ import annotations

import pytest

from pytest_sandbox_runtime.compose.scalars import resolve, written


@pytest.mark.parametrize(
    "word", ["yes", "no", "on", "off", "y", "n", "Yes", "NO", "22:22", "1.2.3", "2024-01-01", "-", "0b", "1e", "x"]
)
def test_what_only_yaml_1_1_takes_for_more_is_a_text(word: str) -> None:
    assert resolve(word) == word


@pytest.mark.parametrize(
    ("text", "value"),
    [("", None), ("~", None), ("null", None), ("NULL", None), ("true", True), ("True", True), ("FALSE", False)],
)
def test_words_stand_for_nothing_and_for_truth(text: str, value: object) -> None:
    assert resolve(text) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-5", -5),
        ("+5", 5),
        ("0755", 493),
        ("0o755", 493),
        ("-017", -15),
        ("0x1F", 31),
        ("0b101", 5),
        ("1_000", 1000),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("08", 8.0),
        ("-.inf", float("-inf")),
    ],
)
def test_numbers_have_all_their_forms(text: str, value: float) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_there_is_a_number_that_is_none() -> None:
    value = resolve(".nan")
    assert value != value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (493, "493"),
        (1.5, "1.5"),
        (3.0, "3"),
        ("x", "x"),
        (float("inf"), "inf"),
    ],
)
def test_a_value_is_written_as_compose_does_where_a_text_is_wanted(value: float | str, text: str) -> None:
    assert written(value) == text
