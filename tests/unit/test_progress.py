"""What a build says, with and without a terminal."""

from __future__ import annotations

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
