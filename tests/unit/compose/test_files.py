"""Which files are read, with which variables, under which name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.compose import load
from pytest_sandbox_runtime.errors import ComposeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import Project


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def image(name: str) -> str:
    return f"services: {{web: {{image: {name}}}}}"


@pytest.mark.parametrize(
    "there",
    [
        ["compose.yaml", "compose.yml", "docker-compose.yml"],
        ["compose.yml", "docker-compose.yml", "docker-compose.yaml"],
        ["docker-compose.yml", "docker-compose.yaml"],
        ["docker-compose.yaml", "other.yaml"],
    ],
)
def test_a_directory_is_its_first_file_of_a_known_name(there: list[str]) -> None:
    for name in there:
        write(f"app/{name}", image(name))
    project = load("app", environ={})
    assert project.files == (f"app/{there[0]}",)
    assert (project.services[0].image, project.name) == (there[0], "app")


def test_a_directory_has_an_override() -> None:
    write("compose.yaml", image("x"))
    write("compose.override.yaml", "services: {web: {user: u}}")
    assert load(".", environ={}).files == ("compose.yaml", "compose.override.yaml")
    assert load(".", environ={}).services[0].user == "u"
    assert load("compose.yaml", environ={}).services[0].user is None


def test_compose_file_names_the_files_of_a_directory() -> None:
    write("a.yaml", image("x"))
    write("b.yaml", "services: {web: {user: u}}")
    write(".env", "COMPOSE_FILE=a.yaml:b.yaml\n")
    assert load(".", environ={}).files == ("a.yaml", "b.yaml")


def test_several_files_are_merged_in_their_order() -> None:
    write("a/one.yaml", image("x"))
    write("b/two.yaml", image("y"))
    project = load(["a/one.yaml", "b/two.yaml"], environ={})
    assert (project.services[0].image, project.directory) == ("y", str(Path("a").resolve()))


def test_variables_come_from_around_and_from_the_file_beside() -> None:
    write("app/compose.yaml", image("'$A-$B'"))
    write("app/.env", "A=file\nB=file")
    write("other.env", "B=other")
    assert load("app", environ={"A": "around"}).services[0].image == "around-file"
    project = load("app", environ={"A": "around"}, env_file="other.env")
    assert project.services[0].image == "around-other"


def test_a_variable_without_value_is_noted() -> None:
    write("compose.yaml", "services:\n  web:\n    image: x:$A\n    command: [$A, '${B:-b}']\n")
    assert load(".", environ={}).notes == (
        "compose.yaml:3: services.web.image: the variable A is not set, and is taken as empty",
        "compose.yaml:4: services.web.command[0]: the variable A is not set, and is taken as empty",
    )


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "from-file-1"),
        ({"environ": {"COMPOSE_PROJECT_NAME": "env", "N": "1"}}, "env"),
        ({"environ": {"COMPOSE_PROJECT_NAME": "env"}, "project_name": "own"}, "own"),
    ],
)
def test_a_project_has_the_name_that_is_said_nearest(options: dict[str, Any], name: str) -> None:
    write(
        "compose.yaml",
        'name: "From File-$N"\nservices: {web: {image: "$COMPOSE_PROJECT_NAME"}}'.replace(" File", "-File"),
    )
    project = load(".", **{"environ": {"N": "1"}, **options})
    assert (project.name, project.services[0].image) == (name, name)


def test_a_project_without_a_name_has_that_of_its_directory() -> None:
    write("My App_2/compose.yaml", image("x"))
    assert load("My App_2", environ={}).name == "myapp_2"


@pytest.mark.parametrize(
    ("paths", "options", "said"),
    [
        ("empty", {}, "empty: there is no compose file in this directory\n  hint: Compose looks for compose.yaml, compose.yml, docker-compose.yml, docker-compose.yaml"),
        ("none.yaml", {}, "none.yaml: cannot be read: No such file or directory"),
        ([], {}, "there is no compose file to read\n  hint: name a file, or the directory of one"),
        ("a.yaml", {"env_file": "none.env"}, "none.env: cannot be read: No such file or directory"),
        ("a.yaml", {"project_name": "No Name"}, "'No Name' is no name of a project\n  hint: small letters, digits, - and _, with a letter or a digit first"),
        ("latin.yaml", {}, "latin.yaml: cannot be read: it is not UTF-8"),
        ("blank.yaml", {}, "blank.yaml: there are no services\n  hint: a compose file has them under services:"),
        ("none_in.yaml", {}, "none_in.yaml:1:1: there are no services\n  hint: a compose file has them under services:"),
    ],
)  # fmt: skip
def test_what_is_no_project_is_said(paths: Any, options: dict[str, Any], said: str) -> None:
    Path("empty").mkdir()
    write("a.yaml", image("x"))
    write("blank.yaml", "# nothing\n")
    write("none_in.yaml", "volumes: {}\n")
    Path("latin.yaml").write_bytes(b"name: \xe4")
    with pytest.raises(ComposeError) as caught:
        load(paths, **{"environ": {}, **options})
    assert str(caught.value) == said


def test_the_version_is_ignored(read: Callable[..., Project]) -> None:
    assert read('version: "3.8"\n' + image("x")).services[0].image == "x"
