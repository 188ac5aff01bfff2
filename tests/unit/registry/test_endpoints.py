"""Where images are asked for: registries, mirrors, prefixes, and what podman's files say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError, RegistryError
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.registry.endpoints import Endpoint, Rule, Rules, is_loopback
from pytest_sandbox_runtime.images.registry.registries_conf import rules_of

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "@sha256:" + "a" * 64


def places(rules: Rules, name: str) -> list[str]:
    return [f"{one.endpoint.host}/{one.repository}" for one in rules.places(Reference.parse(name))]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("debian:12", "registry-1.docker.io/library/debian"),
        ("index.docker.io/a/b", "registry-1.docker.io/a/b"),
        ("ghcr.io/a/b/c:1", "ghcr.io/a/b/c"),
        ("localhost:5000/x", "localhost:5000/x"),
        ("[::1]:5000/x/y@sha256:" + "a" * 64, "[::1]:5000/x/y"),
    ],
)
def test_a_reference_says_which_registry_is_asked(name: str, place: str) -> None:
    assert places(Rules(), name) == [place]


@pytest.mark.parametrize(
    ("host", "schemes"),
    [
        ("ghcr.io", ("https",)),
        ("ghcr.io:80", ("https",)),
        ("localhost:5000", ("http", "https")),
        ("localhost", ("http", "https")),
        ("a.localhost:1", ("http", "https")),
        ("127.3.2.1:5000", ("http", "https")),
        ("[::1]:5000", ("http", "https")),
        ("[::2]:5000", ("https",)),
        ("127.0.0.1.example.com", ("https",)),
        ("localhost.example.com:5000", ("https",)),
        ("10.0.0.1:5000", ("https",)),
    ],
)
def test_without_tls_only_this_machine_is_spoken_to(host: str, schemes: tuple[str, ...]) -> None:
    assert Endpoint(host).schemes == schemes
    assert Endpoint(host, is_insecure=True).schemes == ("https", "http")


@given(st.text(max_size=30))
def test_any_text_is_this_machine_or_not(host: str) -> None:
    is_loopback(host)


def test_docker_hub_is_called_by_its_name() -> None:
    assert str(Rules().place(Reference.parse("debian"))) == "docker.io/library/debian"


@pytest.mark.parametrize("prefix", ["proxy.example:5000/hub/", "proxy.example:5000/hub"])
def test_the_prefix_of_testcontainers_is_for_docker_hub_alone(prefix: str) -> None:
    rules = rules_of({"TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX": prefix}, "/nowhere")
    assert places(rules, "debian:12") == ["proxy.example:5000/hub/debian"]
    assert places(rules, "a/b") == ["proxy.example:5000/hub/a/b"]
    assert places(rules, "ghcr.io/a/b") == ["ghcr.io/a/b"]


def test_a_prefix_that_is_none_is_said() -> None:
    rules = rules_of({"TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX": "UPPER CASE"}, "/nowhere")
    with pytest.raises(ImageError, match="'UPPER CASE/debian' is no reference"):
        places(rules, "debian")


CONF = """
unqualified-search-registries = ["example.com"]

[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.example/hub"
insecure = true
[[registry.mirror]]
location = "digests.example"
pull-from-mirror = "digest-only"

[[registry]]
location = "plain.example:5000"
insecure = true

[[registry]]
prefix = "ghcr.io/owner"
location = "other.example/kept"

[[registry]]
prefix = "ghcr.io/owner/blocked"
blocked = true

[[registry]]
prefix = "*.wild.example"
insecure = true
"""


@pytest.fixture
def conf(tmp_path: Path) -> Rules:
    path = tmp_path / "named.conf"
    path.write_text(CONF)
    return rules_of({"CONTAINERS_REGISTRIES_CONF": str(path)}, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("debian", ["mirror.example/hub/library/debian", "registry-1.docker.io/library/debian"]),
        (
            "debian" + DIGEST,
            [
                "mirror.example/hub/library/debian",
                "digests.example/library/debian",
                "registry-1.docker.io/library/debian",
            ],
        ),
        ("ghcr.io/owner/a", ["other.example/kept/a"]),
        ("ghcr.io/owners/a", ["ghcr.io/owners/a"]),
        ("a.wild.example:5000/b", ["a.wild.example:5000/b"]),
        ("wild.example/b", ["wild.example/b"]),
    ],
)
def test_mirrors_are_asked_first_and_prefixes_rewritten(conf: Rules, name: str, found: list[str]) -> None:
    assert places(conf, name) == found


def test_what_is_insecure_is_named_so(conf: Rules) -> None:
    def insecure(name: str) -> list[bool]:
        return [one.endpoint.is_insecure for one in conf.places(Reference.parse(name))]

    assert insecure("plain.example:5000/a") == [True]
    assert insecure("plain.example/a") == [False]
    assert insecure("debian") == [True, False]
    assert insecure("a.wild.example/b") == [True]


def test_what_is_blocked_is_not_spoken_to(conf: Rules) -> None:
    with pytest.raises(RegistryError, match="ghcr.io/owner/blocked is not to be spoken to") as caught:
        places(conf, "ghcr.io/owner/blocked")
    assert "registries.conf" in caught.value.hint
    with pytest.raises(RegistryError):
        places(conf, "ghcr.io/owner/blocked/b")


def test_pushed_is_to_the_registry_and_no_mirror(conf: Rules) -> None:
    assert str(conf.place(Reference.parse("a/b:1"))) == "docker.io/a/b"
    with_prefix = Rules(conf.rules, "proxy.example")
    assert str(with_prefix.place(Reference.parse("a/b:1"))) == "docker.io/a/b"


def test_a_users_own_file_takes_the_place_of_the_systems(tmp_path: Path) -> None:
    def write(path: Path, location: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'[[registry]]\nprefix = "x.example"\nlocation = "{location}"\n')

    environ, system = {"HOME": str(tmp_path / "home")}, str(tmp_path / "etc")
    assert rules_of(environ, system) == Rules()
    write(tmp_path / "etc/registries.conf", "system.example")
    assert places(rules_of(environ, system), "x.example/a") == ["system.example/a"]
    write(tmp_path / "home/.config/containers/registries.conf", "own.example")
    assert places(rules_of(environ, system), "x.example/a") == ["own.example/a"]
    write(tmp_path / "etc/registries.conf.d/1.conf", "dropped.example")
    assert places(rules_of(environ, system), "x.example/a") == ["dropped.example/a"]


@pytest.mark.parametrize(
    "content", ["[[registry]]\nprefix = 1", "[[registry]]\n[[registry.mirror]]\n", "[[registry]]\n="]
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.conf"
    path.write_text(content)
    with pytest.raises(RegistryError, match=f"{path} cannot be read: ") as caught:
        rules_of({"CONTAINERS_REGISTRIES_CONF": str(path)})
    assert "man containers-registries.conf" in caught.value.hint


def test_the_longest_prefix_counts() -> None:
    rules = Rules(
        (Rule("a.example", "one.example"), Rule("a.example/b/c", "three.example"), Rule("a.example/b", "two.example"))
    )
    assert places(rules, "a.example/b/c/d") == ["three.example/d"]
    assert places(rules, "a.example/b/d") == ["two.example/d"]
    assert places(rules, "a.example/d") == ["one.example/d"]
