"""``include``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import Project


def write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


MAIN = "services: {web: {image: x, depends_on: [db]}}\n"


def test_what_a_file_declares_is_there_with_its_own_paths(read: Callable[..., Project], directory: Path) -> None:
    write("sub/db.yaml", "services: {db: {image: y, volumes: ['./d:/d', 'v:/v']}}\nvolumes: {v: }")
    project = read("include: [sub/db.yaml]\n" + MAIN)
    assert [service.name for service in project.services] == ["db", "web"]
    assert getattr(project.service("db").volumes[0], "source", None) == f"{directory}/sub/d"
    assert [volume.key for volume in project.volumes] == ["v"]


def test_a_file_has_variables_of_its_own_below_the_projects(read: Callable[..., Project]) -> None:
    write("sub/db.yaml", "services: {db: {image: 'y:$TAG', environment: [A, B], command: [$B]}}")
    write("sub/.env", "TAG=sub\nB=sub")
    db = read("include: [sub/db.yaml]\n" + MAIN, environ={"TAG": "1", "A": "a"}).service("db")
    assert (db.image, db.command) == ("y:1", ("sub",))
    assert db.environment == (("A", "a"), ("B", "sub"))


def test_files_directory_and_variables_can_be_said(read: Callable[..., Project], directory: Path) -> None:
    write("sub/db.yaml", "services: {db: {image: 'y:$TAG', volumes: ['./d:/d']}}")
    write("sub/more.yaml", "services: {db: {user: '$U'}}")
    write("one.env", "TAG=1\nU=1")
    write("two.env", "U=2$TAG")
    entry = "{path: [sub/db.yaml, sub/more.yaml], project_directory: other, env_file: [one.env, two.env]}"
    db = read(f"include: [{entry}]\n{MAIN}").service("db")
    assert (db.image, db.user) == ("y:1", "21")
    assert getattr(db.volumes[0], "source", None) == f"{directory}/other/d"
    assert read(f"include: [{entry}]\n{MAIN}", environ={"TAG": "around"}).service("db").image == "y:around"


def test_what_is_included_may_include_and_extend(read: Callable[..., Project]) -> None:
    write("a/a.yaml", "include: [../b/b.yaml]\nservices: {db: {extends: {service: base, file: base.yaml}}}")
    write("a/base.yaml", "services: {base: {image: y}}")
    write("b/b.yaml", "services: {cache: {image: z}}")
    project = read("include: [a/a.yaml]\n" + MAIN)
    assert sorted(service.name for service in project.services) == ["cache", "db", "web"]


def test_the_including_file_comes_over_what_it_includes(read: Callable[..., Project]) -> None:
    write("db.yaml", "services: {db: {image: y, user: u}}")
    db = read("include: [db.yaml]\nservices: {web: {image: x}, db: {image: z}}").service("db")
    assert (db.image, db.user) == ("z", "u")


def test_a_service_may_extend_one_that_is_included(read: Callable[..., Project]) -> None:
    write("db.yaml", "services: {db: {image: y}}")
    assert read("include: [db.yaml]\nservices: {web: {extends: db}}").service("web").image == "y"


def test_a_circle_is_named(mistakes: Callable[..., str]) -> None:
    write("other.yaml", "include: [compose.yaml]\nservices: {db: {image: y}}")
    said = mistakes("include: [other.yaml]\n" + MAIN)
    assert said == ("other.yaml:1:11: include[0]: files include each other: compose.yaml -> other.yaml -> compose.yaml")


def test_a_file_elsewhere_is_refused(mistakes: Callable[..., str]) -> None:
    said = mistakes("include:\n  - https://example.com/x.git\n" + MAIN)
    assert said == (
        "compose.yaml:2:5: include[0]: https://example.com/x.git is not on this machine\n"
        "  hint: fetch it, and include the file"
    )


def test_a_file_that_is_not_there_is_said_where_it_is_named(mistakes: Callable[..., str]) -> None:
    said = mistakes("include: [none.yaml]\n" + MAIN)
    assert said == "compose.yaml:1:11: include[0]: none.yaml cannot be read: No such file or directory"


def test_variables_that_are_not_there_are_said_where_they_are_named(
    mistakes: Callable[..., str], directory: Path
) -> None:
    write("db.yaml", "services: {db: {image: y}}")
    said = mistakes("include: [{path: db.yaml, env_file: none.env}]\n" + MAIN)
    assert said == (
        f"compose.yaml:1:27: include[0].env_file: {directory}/none.env cannot be read: No such file or directory"
    )


def test_a_mistake_is_said_where_it_stands(mistakes: Callable[..., str]) -> None:
    write("sub/db.yaml", "services:\n  db: {image: y, pid: host}\n")
    said = mistakes("include: [sub/db.yaml]\n" + MAIN)
    assert said.splitlines()[0] == "sub/db.yaml:2:18: services.db.pid: is not supported"
