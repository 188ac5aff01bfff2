"""``build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.compose import Build, BuildContext, FileUse

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import ComposeService, Project


def test_the_short_form_is_the_directory(service: Callable[..., ComposeService], directory: Path) -> None:
    Path("app").mkdir()
    assert service("build: ./app").build == Build(context=f"{directory}/app", dockerfile=f"{directory}/app/Dockerfile")
    assert service("build: .").image is None


def test_the_long_form_says_all(service: Callable[..., ComposeService], directory: Path) -> None:
    Path("app").mkdir()
    Path("lib").mkdir()
    text = """
build:
  context: app
  dockerfile: ../Dockerfile.dev
  target: runtime
  args: {VERSION: 1.10, DEBUG: true, FROM_HOST: , NOT_THERE: }
  additional_contexts: {lib: ./lib, base: docker-image://debian:12}
  secrets: [token, {source: token, target: other}]
  labels: [a=b]
  cache_from: [x]
  platforms: [linux/amd64]
"""
    text = "\n".join(line for line in text.splitlines() if line)
    web = service(text, "secrets: {token: {environment: T}}\n", environ={"FROM_HOST": "h", "T": ""})
    assert web.build == Build(
        context=f"{directory}/app",
        dockerfile=f"{directory}/Dockerfile.dev",
        target="runtime",
        args=(("VERSION", "1.1"), ("DEBUG", "true"), ("FROM_HOST", "h")),
        contexts=(BuildContext(name="lib", directory=f"{directory}/lib"), BuildContext(name="base", image="debian:12")),
        secrets=(
            FileUse(source="token", target="/run/secrets/token"),
            FileUse(source="token", target="/run/secrets/other"),
        ),
        labels=(("a", "b"),),
    )


def test_a_dockerfile_may_stand_in_the_file(service: Callable[..., ComposeService], directory: Path) -> None:
    build = service('build: {dockerfile_inline: "FROM scratch\\nENV A=$$A\\n"}').build
    assert build == Build(context=str(directory), dockerfile_inline="FROM scratch\nENV A=$A\n")


def test_an_image_may_be_made_from_that_of_another_service(read: Callable[..., Project]) -> None:
    project = read("""
services:
  base: {build: .}
  web: {build: {context: ., additional_contexts: ["base=service:base"]}}
""")
    build = project.service("web").build
    assert build is not None
    assert build.contexts == (BuildContext(name="base", service="base"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://github.com/x/y.git", "build: https://github.com/x/y.git is not on this machine\n  hint: fetch it, and name its directory"),
        ("{context: git@github.com:x/y}", "build.context: git@github.com:x/y is not on this machine\n  hint: fetch it, and name its directory"),
        ("/no/such", "build: there is no directory /no/such\n  hint: paths start from the file's directory"),
        ("{dockerfile: a, dockerfile_inline: b}", "build.dockerfile_inline: stands beside dockerfile\n  hint: say one of the two"),
        ("{additional_contexts: {x: 'oci-layout://x'}}", "build.additional_contexts.x: oci-layout://x is not on this machine\n  hint: fetch it, and name its directory"),
        ("{additional_contexts: {x: 'service:y'}}", "build.additional_contexts.x: the image of 'y' is not made here\n  hint: it has to be one of the services that run, and to have build"),
        ("{secrets: [x]}", "build.secrets[0]: there is no secret 'x'\n  hint: declare it under secrets, beside services"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_said(mistake: Callable[..., str], text: str, said: str) -> None:
    assert mistake(f"build: {text}") == said


def test_a_service_without_image_and_build_is_said(mistakes: Callable[..., str]) -> None:
    assert mistakes("services:\n  web: {command: x}\n") == (
        "compose.yaml:2:3: services.web: lacks image and build\n  hint: say what it starts from"
    )
