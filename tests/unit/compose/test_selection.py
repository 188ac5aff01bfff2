"""Profiles, services by name, and the order of what depends on what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import Project

# The specification's own example.
TEXT = """
services:
  foo: {image: foo}
  bar: {image: bar, profiles: [test]}
  baz: {image: baz, depends_on: [bar], profiles: [test]}
  zot: {image: zot, depends_on: [bar], profiles: [debug]}
"""


def names(project: Project) -> list[str]:
    return [service.name for service in project.services]


@pytest.mark.parametrize(
    ("options", "there"),
    [
        ({}, ["foo"]),
        ({"profiles": ["test"]}, ["foo", "bar", "baz"]),
        ({"profiles": ["debug", "test"]}, ["foo", "bar", "baz", "zot"]),
        ({"profiles": ["*"]}, ["foo", "bar", "baz", "zot"]),
        ({"services": ["bar"]}, ["bar"]),
        ({"services": ["baz"]}, ["bar", "baz"]),
        ({"services": ["zot"], "profiles": ["test"]}, ["bar", "zot"]),
        ({"services": ["foo"], "profiles": ["test"]}, ["foo"]),
        ({"environ": {"COMPOSE_PROFILES": "test, other"}}, ["foo", "bar", "baz"]),
        ({"environ": {"COMPOSE_PROFILES": "test"}, "profiles": ["other"]}, ["foo"]),
    ],
)
def test_profiles_and_names_say_what_is_there(
    read: Callable[..., Project], options: dict[str, Any], there: list[str]
) -> None:
    assert names(read(TEXT, **options)) == there


@pytest.mark.parametrize("options", [{"profiles": ["debug"]}, {"services": ["zot"]}])
def test_a_dependency_in_no_active_profile_is_said(mistakes: Callable[..., str], options: dict[str, Any]) -> None:
    assert mistakes(TEXT, **options) == (
        "compose.yaml:6:34: services.zot.depends_on[0]: 'bar' is in no active profile\n"
        "  hint: enable the profile test, or say required: false"
    )


def test_a_dependency_that_is_not_required_may_be_missing(read: Callable[..., Project]) -> None:
    text = """
services:
  web: {image: x, depends_on: {db: {condition: service_healthy, required: false}, no: {condition: service_started, required: "false"}}}
  db: {image: x, profiles: [full]}
"""
    assert read(text).service("web").depends_on == ()
    assert [one.service for one in read(text, profiles=["full"]).service("web").depends_on] == ["db"]


def test_the_profiles_of_who_is_asked_for_are_active(read: Callable[..., Project]) -> None:
    assert read(TEXT, services=["baz"], profiles=["x"]).profiles == ("x", "test")


def test_what_is_not_enabled_may_be_what_cannot_be(read: Callable[..., Project]) -> None:
    text = "services: {web: {image: x}, debug: {image: x, privileged: true, profiles: [debug], networks: [out]}}\nnetworks: {out: {external: true}}"
    assert names(read(text)) == ["web"]


def test_services_come_after_what_they_depend_on(read: Callable[..., Project]) -> None:
    text = """
services:
  a: {image: x, depends_on: [c, b]}
  b: {image: x, depends_on: [d]}
  c: {image: x, depends_on: [d]}
  d: {image: x}
  e: {image: x}
"""
    assert names(read(text)) == ["d", "c", "b", "a", "e"]


def test_a_circle_is_named(mistakes: Callable[..., str]) -> None:
    text = "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: [b]}\n"
    assert mistakes(text) == (
        "compose.yaml:4:30: services.c.depends_on[0]: services wait for each other: b -> c -> b\n"
        "  hint: let one of them go first"
    )


def test_a_service_that_waits_for_itself_is_said(mistakes: Callable[..., str]) -> None:
    said = mistakes("services:\n  a: {image: x, depends_on: [a]}\n")
    assert said.splitlines()[0].endswith("depends_on[0]: services wait for each other: a -> a")


def test_a_service_that_is_not_there_is_said(mistakes: Callable[..., str]) -> None:
    text = "services:\n  web: {image: x, depends_on: [databse]}\n  database: {image: x}\n"
    assert mistakes(text) == (
        "compose.yaml:2:32: services.web.depends_on[0]: there is no service 'databse'\n  hint: did you mean database?"
    )
    assert mistakes(text.replace("databse", "database"), services=["wbe"]) == (
        "compose.yaml:1:1: there is no service 'wbe'\n  hint: did you mean web?"
    )
