"""What a build says, with and without a terminal."""

from __future__ import annotations

import time

import pytest

from pytest_sandbox.progress import Progress


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")


def said_by(*, is_terminal: bool) -> tuple[Progress, list[str]]:
    said: list[str] = []
    return Progress(said.append, is_terminal=is_terminal), said


def test_without_a_terminal_a_step_is_one_line() -> None:
    progress, said = said_by(is_terminal=False)
    progress.report("one")
    progress.done("one", 1)
    assert said == ["one\n"]


def test_on_a_terminal_the_line_of_a_step_gets_its_time() -> None:
    progress, said = said_by(is_terminal=True)
    progress.report("one")
    assert said == ["one"]
    progress.done("one", 1.26)
    assert "".join(said) == "one 1.3 s\n"


def test_steps_side_by_side_are_told_apart() -> None:
    progress, said = said_by(is_terminal=True)
    for line in ("one", "two"):
        progress.report(line)
    for line in ("one", "two"):
        progress.done(line, 2)
    assert "".join(said) == "one\ntwo\none 2.0 s\ntwo 2.0 s\n"


def test_a_long_line_is_cut_to_the_terminal_with_its_time() -> None:
    progress, said = said_by(is_terminal=True)
    line = "step 1/1 " + "x" * 80
    progress.report(line)
    progress.done(line, 1000)
    (text,) = "".join(said).splitlines()
    assert len(text) < 40
    assert text.endswith("xxx... 1000.0 s")


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: seconds)


def test_a_bar_says_how_much_is_there_and_how_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    progress, said = said_by(is_terminal=True)
    progress.report("pull web:1")
    at(monkeypatch, 100.0)
    progress.amount("pull web:1", 0, 48_000_000)
    at(monkeypatch, 100.05)
    progress.amount("pull web:1", 1_000_000, 48_000_000)
    at(monkeypatch, 102.0)
    progress.amount("pull web:1", 24_000_000, 48_000_000)
    progress.amount("pull web:1", 48_000_000, 48_000_000)
    progress.done("pull web:1", 2.04)
    assert "".join(said).split("\r") == [
        "pull web:1",
        "pull web:1 [                    ] 0.0 MB of 48.0 MB, 0.0 MB/s\033[K",
        "pull web:1 [##########          ] 24.0 MB of 48.0 MB, 12.0 MB/s\033[K",
        "pull web:1 48.0 MB, 2.0 s\033[K\n",
    ]


def test_a_bar_fits_on_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    progress, said = said_by(is_terminal=True)
    line = "pull registry.example.com/team/" + "x" * 60
    progress.report(line)
    progress.amount(line, 99_999_000_000, 99_999_000_000)
    assert all(len(part.removesuffix("\033[K")) < 70 for part in "".join(said).split("\r"))


def test_without_a_terminal_there_is_no_bar() -> None:
    progress, said = said_by(is_terminal=False)
    progress.report("pull web:1")
    progress.amount("pull web:1", 1, 2)
    progress.done("pull web:1", 1)
    assert said == ["pull web:1\n"]
