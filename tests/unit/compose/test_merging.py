"""Several files as one, by the specification's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import ComposeService, Project


@pytest.fixture
def merged(read: Callable[..., Project]) -> Callable[..., ComposeService]:
    """The only service of files, each the text of what stands under its name, in braces."""

    def merged(*texts: str, **options: Any) -> ComposeService:
        rest = "\nvolumes: {a: , b: , c: }\nnetworks: {n: , m: }\nsecrets: {s: {content: s}, t: {content: t}}\n"
        rest = rest.replace("content", "environment").replace(": s}", ": HOME}").replace(": t}", ": HOME}")
        first, *others = texts
        files = [
            f"services: {{web: {{image: x, {first}}}}}{rest}",
            *(f"services: {{web: {{{text}}}}}" for text in others),
        ]
        return read(*files, **{"environ": {"HOME": "/h"}, **options}).service("web")

    return merged


def test_mappings_are_merged_and_texts_replaced(merged: Callable[..., ComposeService]) -> None:
    web = merged("user: a, hostname: h", "user: b, working_dir: /w")
    assert (web.image, web.user, web.hostname, web.working_dir) == ("x", "b", "h", "/w")


def test_lists_are_appended_with_each_item_once(merged: Callable[..., ComposeService]) -> None:
    web = merged("cap_add: [CHOWN, KILL], expose: [80]", "cap_add: [KILL, MKNOD], expose: [81, 80]")
    assert web.cap_add == ("CHOWN", "KILL", "MKNOD")
    assert web.expose == ((80, "tcp"), (81, "tcp"))


@pytest.mark.parametrize("key", ["command", "entrypoint"])
def test_commands_are_replaced_also_by_nothing(merged: Callable[..., ComposeService], key: str) -> None:
    assert getattr(merged(f"{key}: [a, b]", f"{key}: [c]"), key) == ("c",)
    assert getattr(merged(f"{key}: [a, b]", f"{key}: []"), key) == ()
    assert getattr(merged(f"{key}: [a, b]", f"{key}: "), key) is None


def test_the_test_of_a_healthcheck_is_replaced_and_its_times_merged(merged: Callable[..., ComposeService]) -> None:
    check = merged(
        "healthcheck: {test: [CMD, a], interval: 1s}", "healthcheck: {test: [CMD, b], timeout: 2s}"
    ).healthcheck
    assert check is not None
    assert (check.test, check.interval, check.timeout) == (("b",), 1.0, 2.0)


@pytest.mark.parametrize("first", ["{A: 1, B: 1}", "[A=1, B=1]"])
@pytest.mark.parametrize("second", ["{B: 2, C: 2, HOME: }", "[B=2, C=2, HOME]"])
def test_environments_are_merged_by_name_in_either_form(
    merged: Callable[..., ComposeService], first: str, second: str
) -> None:
    web = merged(f"environment: {first}", f"environment: {second}")
    assert web.environment == (("A", "1"), ("B", "2"), ("C", "2"), ("HOME", "/h"))


def test_a_name_alone_takes_a_value_away(merged: Callable[..., ComposeService]) -> None:
    assert merged("environment: {A: 1, B: 1}", "environment: [A]").environment == (("B", "1"),)


def test_labels_and_build_arguments_are_merged_by_name(merged: Callable[..., ComposeService]) -> None:
    web = merged(
        "labels: [a=1, b=1], build: .", "labels: {b: 2}, build: {args: [A=1], target: t}", "build: {args: {A: 2}}"
    )
    assert web.labels == (("a", "1"), ("b", "2"))
    assert web.build is not None
    assert (web.build.target, web.build.args) == ("t", (("A", "2"),))


def test_mounts_are_unique_by_target(merged: Callable[..., ComposeService]) -> None:
    web = merged("volumes: ['a:/x', 'b:/y:ro']", "volumes: ['c:/x', {type: tmpfs, target: /z}]")
    assert [(getattr(use, "source", None), use.target) for use in web.volumes] == [
        ("c", "/x"),
        ("b", "/y"),
        (None, "/z"),
    ]


def test_secrets_are_unique_by_target(merged: Callable[..., ComposeService]) -> None:
    web = merged("secrets: [s, t]", "secrets: [{source: t, target: s, mode: 0400}]")
    assert [(use.source, use.target, oct(use.mode)) for use in web.secrets] == [
        ("t", "/run/secrets/s", "0o400"),
        ("t", "/run/secrets/t", "0o444"),
    ]


def test_ports_are_unique_as_a_whole(merged: Callable[..., ComposeService]) -> None:
    web = merged("ports: ['8000-8001:80-81']", "ports: ['8001:81', '8001:81/udp', {target: 80, published: '8000'}]")
    assert [(port.published, port.target, port.protocol) for port in web.ports] == [
        (8000, 80, "tcp"),
        (8001, 81, "tcp"),
        (8001, 81, "udp"),
    ]


@pytest.mark.parametrize("first", ["[n]", "{n: {aliases: [a]}}"])
def test_networks_are_merged_by_name_in_either_form(merged: Callable[..., ComposeService], first: str) -> None:
    web = merged(f"networks: {first}", "networks: {n: {aliases: [b]}, m: }", "networks: [n]")
    aliases = ("a", "b") if "a]" in first else ("b",)
    assert [(use.network, use.aliases) for use in web.networks] == [("n", aliases), ("m", ())]


def test_dependencies_are_merged_by_name_in_either_form(read: Callable[..., Project]) -> None:
    project = read(
        "services: {a: {image: x}, b: {image: x}, web: {image: x, depends_on: [a]}}",
        "services: {web: {depends_on: {a: {condition: service_healthy}, b: {condition: service_started}}}}",
    )
    assert [(one.service, one.condition) for one in project.service("web").depends_on] == [
        ("a", "service_healthy"),
        ("b", "service_started"),
    ]


def test_limits_of_one_name_are_replaced_as_a_whole(merged: Callable[..., ComposeService]) -> None:
    web = merged("ulimits: {nofile: {soft: 1, hard: 2}, nproc: 5}", "ulimits: {nofile: 9}")
    assert [(limit.name, limit.soft, limit.hard) for limit in web.ulimits] == [("nofile", 9, 9), ("nproc", 5, 5)]


def test_subnets_are_merged_by_address(read: Callable[..., Project]) -> None:
    base = "services: {web: {image: x, networks: [n]}}\nnetworks: {n: {ipam: {config: [{subnet: 10.0.0.0/24}]}}}"
    over = (
        "networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.0.0.9}, {subnet: 10.1.0.0/24}]}}, other: }\n"
        "services: {}"
    )
    (network,) = read(base, over).networks
    assert [(subnet.subnet, subnet.gateway) for subnet in network.subnets] == [
        ("10.0.0.0/24", "10.0.0.9"),
        ("10.1.0.0/24", None),
    ]


def test_reset_takes_away_what_an_earlier_file_says(merged: Callable[..., ComposeService]) -> None:
    web = merged(
        "ports: ['80:80'], environment: {A: 1, B: 1}, user: u",
        "ports: !reset [], environment: {A: !reset null}, user: !reset null",
    )
    assert (web.ports, web.environment, web.user) == ((), (("B", "1"),), None)


def test_reset_takes_nothing_from_a_later_file(merged: Callable[..., ComposeService]) -> None:
    web = merged("ports: ['80:80']", "ports: !reset []", "ports: ['81:81']")
    assert [port.target for port in web.ports] == [81]


def test_reset_can_take_away_a_service(read: Callable[..., Project]) -> None:
    project = read("services: {a: {image: x}, b: {image: x}}", "services: {b: !reset null}")
    assert [service.name for service in project.services] == ["a"]


def test_override_replaces_what_would_be_merged(merged: Callable[..., ComposeService]) -> None:
    web = merged("ports: ['80:80'], environment: {A: 1}", "ports: !override ['81:81'], environment: !override [B=2]")
    assert [port.target for port in web.ports] == [81]
    assert web.environment == (("B", "2"),)


def test_later_documents_of_a_file_are_merged_over_earlier_ones(read: Callable[..., Project]) -> None:
    assert read("services: {web: {image: x}}\n---\nservices: {web: {image: y}}\n").service("web").image == "y"


def test_paths_start_from_the_directory_of_the_first_file(read: Callable[..., Project], directory: object) -> None:
    read("services: {web: {image: x}}")
    (mount,) = read("services: {web: {image: x}}", "services: {web: {volumes: ['./d:/d']}}").service("web").volumes
    assert getattr(mount, "source", None) == f"{directory}/d"


def test_a_mistake_of_a_later_file_is_said_at_its_line(mistakes: Callable[..., str]) -> None:
    said = mistakes("services:\n  web: {image: x}", "services:\n  web:\n    # c\n    privileged: true\n")
    assert said.splitlines()[0] == "compose1.yaml:4:5: services.web.privileged: is not supported"


def test_a_list_does_not_go_with_a_mapping(mistakes: Callable[..., str]) -> None:
    said = mistakes(
        "services: {web: {image: x}}\nvolumes: {v: {external: true}}",
        "volumes:\n  v:\n    external: {name: x}",
    )
    assert said == (
        "compose1.yaml:3:5: volumes.v.external: cannot be merged with what stands at compose.yaml:2\n"
        "  hint: a list goes with a list, a mapping with a mapping"
    )
