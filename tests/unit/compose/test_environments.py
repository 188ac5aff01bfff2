"""``environment``, ``env_file``, ``labels`` and ``label_file``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import ComposeService


def test_values_are_written_as_texts(service: Callable[..., ComposeService]) -> None:
    web = service("environment: {A: 1, B: 1.10, C: true, D: no, E: '', F: 0755, G: a=b, H: '05'}")
    assert web.environment == (
        ("A", "1"), ("B", "1.1"), ("C", "true"), ("D", "no"), ("E", ""), ("F", "493"), ("G", "a=b"), ("H", "05"),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["{A: , B: , C: ''}", "[A, B, 'C=']"])
def test_a_name_alone_has_its_value_from_around(service: Callable[..., ComposeService], text: str) -> None:
    Path(".env").write_text("B=file")
    web = service(f"environment: {text}", environ={"A": "around"})
    assert web.environment == (("A", "around"), ("B", "file"), ("C", ""))
    assert service("environment: [NONE, D=d]").environment == (("D", "d"),)


def test_files_come_below_what_is_said_and_later_over_earlier_ones(service: Callable[..., ComposeService]) -> None:
    Path("a.env").write_text("A=a\nB=a\nC=a\nAROUND\n")
    Path("b.env").write_text('B=b\nREF="$A$X"\n')
    web = service("env_file: [a.env, b.env]\nenvironment: {C: c, A: }", environ={"AROUND": "1", "X": "x"})
    assert web.environment == (("B", "b"), ("C", "c"), ("AROUND", "1"), ("REF", "ax"))


def test_a_file_has_all_its_forms(service: Callable[..., ComposeService]) -> None:
    Path("a.env").write_text("A='$X'\n")
    assert service("env_file: a.env").environment == (("A", "$X"),)
    assert service("env_file: [{path: a.env, format: raw}]").environment == (("A", "'$X'"),)
    assert service("env_file: [{path: none.env, required: false}]").environment == ()


def test_labels_are_said_and_in_files(service: Callable[..., ComposeService]) -> None:
    Path("labels").write_text("a=1\nb=1\n")
    web = service("label_file: labels\nlabels: [b=2, com.example.empty]\nannotations: {c: 3}")
    assert web.labels == (("a", "1"), ("b", "2"), ("com.example.empty", ""))
    assert web.annotations == (("c", "3"),)


def test_what_cannot_be_read_is_said(mistake: Callable[..., str], directory: Path) -> None:
    assert mistake("env_file: [none.env]") == (
        f"env_file[0]: {directory}/none.env cannot be read: No such file or directory"
    )
    assert mistake("env_file: [{path: none.env, required: true}]") == (
        f"env_file[0].path: {directory}/none.env cannot be read: No such file or directory"
    )
    assert mistake("env_file: [{path: a, format: json}]") == (
        "env_file[0].format: 'json' is not known\n  hint: there is raw"
    )


def test_a_line_that_sets_nothing_is_said_in_its_file(mistakes: Callable[..., str], directory: Path) -> None:
    Path("a.env").write_text("A=1\n?\n")
    assert mistakes("services: {web: {image: x, env_file: a.env}}") == (
        f"{directory}/a.env:2:1: '?' sets no variable\n  hint: lines are NAME=value, or comments behind a #"
    )


def test_labels_of_compose_itself_are_reserved(mistake: Callable[..., str]) -> None:
    assert mistake("labels: [com.docker.compose.project=x]") == (
        "labels: the label com.docker.compose.project is reserved\n  hint: no label begins with com.docker.compose"
    )
