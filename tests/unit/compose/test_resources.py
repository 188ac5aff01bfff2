"""Volumes, configs and secrets of the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.compose import ComposeFile, ComposeVolume

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import Project

WEB = "services: {web: {image: x, volumes: ['v:/v'], configs: [c], secrets: [s]}}\n"
REST = {"v": "volumes: {v: }", "c": "configs: {c: {content: c}}", "s": "secrets: {s: {environment: S}}"}


def text(**parts: str) -> str:
    return WEB + "".join(f"{line}\n" for line in {**REST, **parts}.values())


def test_what_services_use_is_in_the_project(read: Callable[..., Project], directory: Path) -> None:
    Path("conf").write_text("")
    project = read(
        text(
            v="volumes: {unused: {external: true}, v: {name: own, driver: local, labels: [a=1]}}",
            c="configs: {c: {file: conf}, unused: {external: true}}",
        ),
        environ={"S": "secret"},
    )
    assert project.volumes == (ComposeVolume(key="v", name="own", origin="", labels=(("a", "1"),)),)
    assert project.configs == (ComposeFile(key="c", name="test_c", origin="", file=f"{directory}/conf"),)
    assert project.secrets == (ComposeFile(key="s", name="test_s", origin="", content="secret"),)
    assert project.volumes[0].origin == "compose.yaml:2"


def test_a_text_may_have_variables_in_it(read: Callable[..., Project]) -> None:
    project = read(text(c='configs: {c: {content: "a=$A\\n"}}'), environ={"S": "", "A": "1"})
    assert project.configs[0].content == "a=1\n"


def test_a_secret_is_in_no_repr(read: Callable[..., Project]) -> None:
    assert "hidden" not in repr(read(text(), environ={"S": "hidden"}))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"v": "volumes: {v: {external: true}}"}, "volumes.v.external: is not supported: nothing is there before the run\n  hint: leave external out: the volume is made for the run"),
        ({"v": "volumes: {v: {external: {name: x}}}"}, "volumes.v.external: is not supported: nothing is there before the run\n  hint: leave external out: the volume is made for the run"),
        ({"v": "volumes: {v: {driver: nfs}}"}, "volumes.v.driver: 'nfs' is not known\n  hint: there is local"),
        ({"v": "volumes: {v: {driver_opts: {type: none}}}"}, "volumes.v.driver_opts: is not supported\n  hint: for a directory of the host, name its path under the service's volumes"),
        ({"c": "configs: {c: {external: true}}"}, "configs.c.external: is not supported: nothing is there before the run\n  hint: say file, environment or content"),
        ({"c": "configs: {c: {}}"}, "configs.c: lacks file, environment or content\n  hint: say one of file, environment and content"),
        ({"c": "configs: {c: {file: a, content: b}}"}, "configs.c: has file and content\n  hint: say one of file, environment and content"),
        ({"c": "configs: {c: {content: b, template_driver: golang}}"}, "configs.c.template_driver: is not supported\n  hint: say file, environment or content"),
        ({"s": "secrets: {s: {environment: T}}"}, "secrets.s.environment: the variable T is not set\n  hint: set it in the environment, or in the file .env"),
        ({"s": "secrets: {s: {external: 'yes'}}"}, "secrets.s.external: is not supported: nothing is there before the run\n  hint: say file, environment or content"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(mistakes: Callable[..., str], parts: dict[str, str], said: str) -> None:
    assert said in [
        problem.partition(": ")[2] for problem in mistakes(text(**parts), environ={"S": ""}).split("\ncompose")
    ]


def test_a_file_that_is_not_there_is_said(mistakes: Callable[..., str], directory: Path) -> None:
    assert mistakes(text(c="configs: {c: {file: none}}"), environ={"S": ""}) == (
        f"compose.yaml:3:15: configs.c.file: there is no file {directory}/none\n"
        "  hint: paths start from the file's directory"
    )
