"""What the schema has against a file, in words, at the line, and all of it at once."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import Project


def test_every_mistake_is_said_in_the_order_of_the_lines(mistakes: Callable[..., str]) -> None:
    said = mistakes("""\
name: shop
x-anything: {goes: [here]}
services:
  web:
    imge: nginx
    image: 5
    x-own: 1
    enviroment: {A: 1}
    build: {context: ., foo: 1}
    environment: {a.b: [1]}
    deploy: {resources: {limits: {memory: 5}}}
    healthcheck: {test: [CMD, 3]}
    ports: [[80], {targt: 80}]
    volumes: [{type: bnd, target: /x}]
    depends_on: {db: {}, other: {condition: healthy}}
    restart: false
  "b a d": {image: x}
volumes: []
volums: {}
""")
    assert (
        said
        == """\
compose.yaml:5:5: services.web.imge: there is no such key
  hint: did you mean image?
compose.yaml:6:5: services.web.image: this is a number, and has to be a text
  hint: write it in quotes: "5"
compose.yaml:8:5: services.web.enviroment: there is no such key
  hint: did you mean environment?
compose.yaml:9:25: services.web.build.foo: there is no such key
compose.yaml:10:19: services.web.environment.a.b: this is a list, and has to be a text, a number, true or false or nothing
compose.yaml:11:35: services.web.deploy.resources.limits.memory: this is a number, and has to be a text
  hint: write it in quotes: "5"
compose.yaml:12:31: services.web.healthcheck.test[1]: this is a number, and has to be a text
  hint: write it in quotes: "3"
compose.yaml:13:13: services.web.ports[0]: this is a list, and has to be a number, a text or a mapping
compose.yaml:13:20: services.web.ports[1].targt: there is no such key
  hint: did you mean target?
compose.yaml:14:16: services.web.volumes[0].type: 'bnd' is not known
  hint: did you mean bind?
compose.yaml:15:18: services.web.depends_on.db: lacks condition
compose.yaml:15:34: services.web.depends_on.other.condition: 'healthy' is not known
  hint: did you mean service_healthy?
compose.yaml:16:5: services.web.restart: this is false, and has to be a text
  hint: write it in quotes: "false"
compose.yaml:17:3: services.b a d: 'b a d' is no name
  hint: names have letters, digits, ., _ and - only
compose.yaml:18:1: volumes: this is a list, and has to be a mapping
compose.yaml:19:1: volums: there is no such key
  hint: did you mean volumes?"""
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("environment:", "environment: this is nothing, and has to be a mapping or a list\n  hint: leave the key out, or say what it is"),
        ("command: {a: b}", "command: this is a mapping, and has to be nothing, a text or a list"),
        ("command: [sleep, 5]", 'command[1]: this is a number, and has to be a text\n  hint: write it in quotes: "5"'),
        ("privileged: [x]", "privileged: this is a list, and has to be true or false"),
        ("depends_on: {a: {condition: service_started, required: [x]}}", "depends_on.a.required: this is a list, and has to be true or false"),
        ("scale: x y", "scale: 'x y' is no whole number"),
        ("cpu_count: -1", "cpu_count: -1 is less than 0"),
        ("oom_score_adj: 5000", "oom_score_adj: 5000 is more than 1000"),
        ("pull_policy: sometimes", "pull_policy: 'sometimes' is not of the form always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+"),
        ("user: 1000", 'user: this is a number, and has to be a text\n  hint: write it in quotes: "1000"'),
    ],
)  # fmt: skip
def test_a_mistake_is_said_in_words(mistake: Callable[..., str], text: str, said: str) -> None:
    assert mistake(text) == said


def test_variables_may_stand_for_numbers_and_for_truth(read: Callable[..., Project]) -> None:
    text = """
services:
  db: {image: x}
  web:
    image: x
    read_only: ${YES}
    scale: "${TWO}"
    depends_on: {db: {condition: service_started, required: $YES}}
    networks: {default: {priority: $TWO}}
    ports: [{target: $TWO, published: $TWO}]
"""
    web = read(text, environ={"YES": "true", "TWO": "2"}).service("web")
    assert (web.read_only, web.scale, web.depends_on[0].required, web.ports[0].target) == (True, 2, True, 2)


def test_a_file_that_is_no_mapping_is_said(mistakes: Callable[..., str]) -> None:
    assert mistakes("[services]") == "compose.yaml:1:1: a compose file is a mapping\n  hint: it begins with services:"


def test_the_schema_and_its_notice_are_installed() -> None:
    folder = files("pytest_sandbox_runtime.compose")
    assert json.loads((folder / "compose-spec.json").read_text())["title"] == "Compose Specification"
    assert "Apache License" in (folder / "compose-spec.NOTICE").read_text()


def test_nothing_is_imported_before_a_file_is_read() -> None:
    code = "import sys, pytest_sandbox_runtime.compose; print({'yaml', 'fastjsonschema', 'pytest'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "set()"


@pytest.mark.parametrize(("module", "package"), [("yaml", "PyYAML"), ("fastjsonschema", "fastjsonschema")])
def test_a_package_that_is_missing_is_named(module: str, package: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None; from pytest_sandbox_runtime.compose import load; "
        "open('compose.yaml', 'w').write('services: {web: {image: x}}'); load('compose.yaml')"
    )
    said = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert said.stderr.endswith(
        f"UnsupportedError: reading compose files needs {package}, which is not installed\n"
        "  hint: pip install pytest-sandbox[compose]\n"
    )
