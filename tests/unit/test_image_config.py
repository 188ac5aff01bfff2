"""An image's configuration, and what is in force for each of its layers."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_sandbox_runtime.images.config import PATH, Step, author_of, config_of, steps
from pytest_sandbox_runtime.specs import Author, Copy, Image, OnBuild, Run

ENV = f"PATH={PATH}"
BASE: dict[str, Any] = {
    "Env": ["PATH=/base", "A=1"],
    "Cmd": ["base"],
    "WorkingDir": "/srv",
    "User": "base",
    "Labels": {"a": "1"},
    "ExposedPorts": {"1/tcp": {}},
    "OnBuild": ["RUN x"],
    "ArgsEscaped": True,
}


@pytest.mark.parametrize(
    ("image", "config"),
    [
        (Image().env(B="2", A="1"), {"Env": [ENV, "B=2", "A=1"]}),
        (Image().env(A="1", B="2").env(A="3"), {"Env": [ENV, "A=3", "B=2"]}),
        (Image().env(PATH="/x"), {"Env": ["PATH=/x"]}),
        (Image().workdir("a").workdir("../b/"), {"WorkingDir": "/b"}),
        (Image().workdir("/a").workdir("b"), {"WorkingDir": "/a/b"}),
        (Image().workdir("//a"), {"WorkingDir": "/a"}),
        (Image().user("1:2"), {"User": "1:2"}),
        (Image().cmd("a b"), {"Cmd": ["/bin/sh", "-c", "a b"]}),
        (Image().cmd(["a"]).cmd([]), {}),
        (Image().shell(["sh", "-x"]).entrypoint("a"), {"Shell": ["sh", "-x"], "Entrypoint": ["sh", "-x", "a"]}),
        (Image().cmd(["a"]).entrypoint(["b"]), {"Cmd": ["a"], "Entrypoint": ["b"]}),
        (Image().expose(80, "81-82/udp").expose(80), {"ExposedPorts": {"80/tcp": {}, "81/udp": {}, "82/udp": {}}}),
        (Image().label(a="1", b="2").label(a="3"), {"Labels": {"a": "3", "b": "2"}}),
        (Image().volume("/a", " /b "), {"Volumes": {"/a": {}, "/b": {}}}),
        (Image().stop_signal("INT"), {"StopSignal": "INT"}),
        (Image().healthcheck(None), {"Healthcheck": {"Test": ["NONE"]}}),
        (Image().healthcheck("a"), {"Healthcheck": {"Test": ["CMD-SHELL", "a"]}}),
        (
            Image().healthcheck(["a"], interval=1.5, timeout="2s", start_period=3, start_interval=4, retries=5),
            {
                "Healthcheck": {
                    "Test": ["CMD", "a"],
                    "Interval": 1_500_000_000,
                    "Timeout": 2_000_000_000,
                    "StartPeriod": 3_000_000_000,
                    "StartInterval": 4_000_000_000,
                    "Retries": 5,
                }
            },
        ),
        (Image().with_layer(OnBuild(trigger="RUN a")), {"OnBuild": ["RUN a"]}),
        (Image().run("x"), {}),
    ],
)
def test_layers_are_folded(image: Image, config: dict[str, Any]) -> None:
    assert config_of(image) == {"Env": [ENV], **config}


def test_layers_are_folded_over_the_base() -> None:
    config = config_of(Image.pull("a").env(A="2", B="3").workdir("x").label(b="2").expose(2), BASE)
    assert config == {
        "Env": ["PATH=/base", "A=2", "B=3"],
        "Cmd": ["base"],
        "WorkingDir": "/srv/x",
        "User": "base",
        "Labels": {"a": "1", "b": "2"},
        "ExposedPorts": {"1/tcp": {}, "2/tcp": {}},
        "ArgsEscaped": True,
    }
    assert BASE["Labels"] == {"a": "1"}


def test_without_layers_the_configuration_is_the_base_s() -> None:
    assert config_of(Image.pull("a"), BASE) == BASE
    assert config_of(Image.scratch()) == {}


def test_an_entrypoint_unsets_the_base_s_command() -> None:
    assert "Cmd" not in config_of(Image.pull("a").entrypoint(["b"]), BASE)
    assert config_of(Image.pull("a").cmd(["c"]).entrypoint(["b"]), BASE)["Cmd"] == ["c"]


def step(image: Image) -> Step:
    return steps(image.layers, BASE)[-1]


def test_a_step_has_what_is_in_force() -> None:
    image = Image.pull("a").env(B="2").workdir("w").user("u").shell(["bash", "-c"])
    made = step(image.run("x", env={"A": "9"}))
    assert made.environment == {"PATH": "/base", "A": "9", "B": "2"}
    assert (made.workdir, made.user, made.shell) == ("/srv/w", "u", ("bash", "-c"))
    assert made.argv == ("bash", "-c", "x")
    assert step(image.run(["x", "y"])).argv == ("x", "y")
    assert step(image.workdir("/z")).workdir == "/srv/w"
    assert step(image.workdir("/z")).config["WorkingDir"] == "/z"


def test_packages_are_installed_whatever_shell_is_in_force() -> None:
    made = step(Image.pull("a").shell(["bash"]).apt("b"))
    assert isinstance(made.run, Run)
    assert made.argv[0] == "/bin/sh"
    assert made.environment["DEBIAN_FRONTEND"] == "noninteractive"


@pytest.mark.parametrize(
    ("path", "absolute"),
    [
        ("a", "/srv/a"),
        ("a/", "/srv/a/"),
        (".", "/srv/"),
        ("./", "/srv/"),
        ("/a/../b", "/b"),
        ("/", "/"),
        ("//a//b/", "/a/b/"),
        ("../..", "/"),
    ],
)
def test_paths_are_taken_from_the_workdir(path: str, absolute: str) -> None:
    assert step(Image.pull("a").run("x")).path(path) == absolute


def test_layers_with_files_are_told_from_those_without() -> None:
    document = Copy(inline=(("a", b""),), target="/b")
    image = Image().run("a").with_layer(document).file("/a", "b").apt("c").workdir("/d")
    assert all(made.changes_files for made in steps(image.layers))
    others = Image().env(A="1").user("b").cmd("c").label(d="e").expose(1).volume("/f").healthcheck("g")
    assert not any(made.changes_files for made in steps(others.layers))
    assert step(Image().env(A="1")).run is None
    assert step(Image().env(A="1")).argv == ()


def test_the_author_is_the_last_one_that_is_named() -> None:
    image = Image().with_layer(Author(name="a")).with_layer(Author(name="b")).env(A="1")
    assert author_of(image, "c") == "b"
    assert author_of(Image().env(A="1"), "c") == "c"
    assert "Author" not in str(config_of(image))
