"""``extends``, in one file and over several."""

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


def test_a_service_stands_on_top_of_another(read: Callable[..., Project]) -> None:
    project = read("""
services:
  base: {image: b, user: u, environment: {A: 1, B: 1}, command: [a], cap_add: [CHOWN]}
  web: {extends: {service: base}, image: w, environment: [B=2], command: [b], cap_add: [KILL]}
  short: {extends: base}
""")
    web = project.service("web")
    assert (web.image, web.user, web.command, web.cap_add) == ("w", "u", ("b",), ("CHOWN", "KILL"))
    assert web.environment == (("A", "1"), ("B", "2"))
    assert project.service("short").image == "b"


def test_what_is_extended_may_extend_in_any_order(read: Callable[..., Project]) -> None:
    project = read("""
services:
  c: {extends: b, environment: {C: c}}
  b: {extends: a, environment: {B: b}}
  a: {image: x, environment: {A: a}}
""")
    assert project.service("c").environment == (("A", "a"), ("B", "b"), ("C", "c"))


def test_another_file_has_paths_and_extends_of_its_own(read: Callable[..., Project], directory: Path) -> None:
    write(
        "sub/base.yaml",
        """
services:
  base: {extends: {service: root, file: deeper/root.yaml}, volumes: ["./data:/data"], env_file: base.env}
""",
    )
    write("sub/base.env", "FROM=base")
    write("sub/deeper/root.yaml", "services: {root: {image: r, build: ., volumes: ['./more:/more']}}")
    web = read("services: {web: {extends: {service: base, file: sub/base.yaml}, volumes: ['./own:/own']}}").service(
        "web"
    )
    assert [getattr(use, "source", None) for use in web.volumes] == [
        f"{directory}/sub/deeper/more",
        f"{directory}/sub/data",
        f"{directory}/own",
    ]
    assert web.build is not None
    assert web.build.context == f"{directory}/sub/deeper"
    assert web.environment == (("FROM", "base"),)


def test_only_the_service_that_is_extended_comes_from_another_file(read: Callable[..., Project]) -> None:
    write("base.yaml", "services: {base: {image: x}, other: {privileged: true}}")
    project = read("services: {web: {extends: {service: base, file: base.yaml}}}")
    assert [service.name for service in project.services] == ["web"]


def test_reset_takes_from_what_is_extended(read: Callable[..., Project]) -> None:
    project = read("""
services:
  base: {image: x, ports: ["80:80"], environment: {A: 1, B: 1}}
  web: {extends: base, ports: !reset [], environment: !override {C: 1}}
""")
    assert (project.service("web").ports, project.service("web").environment) == ((), (("C", "1"),))


def test_reset_takes_from_earlier_files_too(read: Callable[..., Project]) -> None:
    web = read(
        "services: {web: {image: x, ports: ['80:80']}}",
        "services: {base: {image: y, ports: ['81:81']}, web: {extends: base, ports: !reset []}}",
    ).service("web")
    assert (web.image, web.ports) == ("y", ())


def test_variables_of_another_file_are_those_of_the_project(read: Callable[..., Project]) -> None:
    write("sub/base.yaml", "services: {base: {image: 'x:$TAG'}}")
    write("sub/.env", "TAG=other")
    web = read("services: {web: {extends: {service: base, file: sub/base.yaml}}}", environ={"TAG": "1"}).service("web")
    assert web.image == "x:1"


def test_a_mistake_is_said_where_it_stands(mistakes: Callable[..., str]) -> None:
    write("sub/base.yaml", "services:\n  base:\n    image: x\n    ipc: host\n")
    said = mistakes("services: {web: {extends: {service: base, file: sub/base.yaml}}}")
    assert said.splitlines()[0] == "sub/base.yaml:4:5: services.base.ipc: is not supported"


def test_what_several_services_share_is_said_once(mistakes: Callable[..., str]) -> None:
    said = mistakes("""
services:
  base: {image: x, ipc: host}
  a: {extends: base}
  b: {extends: base}
""")
    assert said.count("is not supported") == 1


def test_a_circle_is_named(mistakes: Callable[..., str]) -> None:
    said = mistakes("services:\n  a: {extends: b}\n  b: {extends: c}\n  c: {extends: b}\n")
    assert said == "compose.yaml:3:7: services.b.extends: services extend each other: b -> c -> b"


def test_a_circle_through_files_is_named(mistakes: Callable[..., str]) -> None:
    write("other.yaml", "services: {b: {extends: {service: a, file: compose.yaml}}}")
    said = mistakes("services: {a: {extends: {service: b, file: other.yaml}}}")
    assert said == "compose.yaml:1:16: services.a.extends: services extend each other: a -> b -> a"


def test_a_service_that_is_not_there_is_said_with_one_that_is(mistakes: Callable[..., str]) -> None:
    said = mistakes("services:\n  base: {image: x}\n  web: {extends: {service: bse}}\n")
    assert said == (
        "compose.yaml:3:9: services.web.extends: there is no service 'bse' in compose.yaml\n  hint: did you mean base?"
    )


def test_a_file_that_is_not_there_is_said_where_it_is_named(mistakes: Callable[..., str]) -> None:
    said = mistakes("services: {web: {extends: {service: a, file: none.yaml}}}")
    assert said == ("compose.yaml:1:40: services.web.extends.file: none.yaml cannot be read: No such file or directory")


def test_a_file_without_services_is_said(mistakes: Callable[..., str]) -> None:
    write("base.yaml", "volumes: {}")
    said = mistakes("services: {web: {extends: {service: a, file: base.yaml}}}")
    assert said == "compose.yaml:1:40: services.web.extends.file: base.yaml has no services"


def test_what_the_extended_service_resets_or_overrides_is_so_for_earlier_files_too(
    read: Callable[..., Project],
) -> None:
    text = "services: {{base: {{image: y, ports: {}}}, web: {{extends: base, ports: ['82:82']}}}}"
    first = "services: {web: {image: x, ports: ['80:80']}}"
    reset = read(first, text.format("!reset []")).service("web")
    override = read(first, text.format("!override ['81:81']")).service("web")
    assert [port.target for port in reset.ports] == [82]
    assert [port.target for port in override.ports] == [81, 82]
