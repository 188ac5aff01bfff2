"""Images as declarations: pure, comparable, pasted back from their repr, and known by a key."""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pytest_sandbox_runtime.specs as declarations
from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs import (
    Apk,
    Apt,
    BindMount,
    CacheMount,
    Context,
    Copy,
    Download,
    File,
    FileMount,
    Image,
    OnBuild,
    Pip,
    Run,
    SandboxSpec,
    SecretMount,
    TmpfsMount,
)
from pytest_sandbox_runtime.specs.checks import parse_duration

NAMES = {name: getattr(declarations, name) for name in declarations.__all__}

TEXTS = st.text(min_size=1, max_size=8).filter(lambda text: "\0" not in text and text.strip())
WORDS = st.text(alphabet="abcXYZ019._-", min_size=1, max_size=8).filter(
    lambda word: word.strip("-.") and word[0] != "-"
)
PATHS = st.lists(WORDS, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
PAIRS = st.dictionaries(TEXTS.filter(lambda text: "=" not in text), st.text(max_size=5).filter(lambda t: "\0" not in t))
COMMANDS = st.one_of(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
SECONDS = st.one_of(st.none(), st.integers(1, 10**6), st.floats(0.001, 10**6))
MODES = st.one_of(st.none(), st.integers(0, 0o7777), st.sampled_from(["644", "u+x", "go-w,a=rX"]))
OWNERS = st.one_of(st.none(), st.integers(0, 10**6), WORDS)


def calls(images: st.SearchStrategy[Image]) -> st.SearchStrategy[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    def call(name: str, *args: st.SearchStrategy[Any], **words: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.tuples(st.just(name), st.tuples(*args), st.fixed_dictionaries(words))

    def many(name: str, words: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.tuples(st.just(name), st.lists(words, min_size=1, max_size=3).map(tuple), st.just({}))

    host_paths = st.lists(PATHS, max_size=2)
    network = st.sampled_from(["none", "host"])
    return st.one_of(
        call("run", COMMANDS, env=PAIRS, network=network, cache=host_paths, secrets=st.dictionaries(WORDS, PATHS)),
        call("copy", st.lists(PATHS, min_size=1, max_size=2), PATHS, chmod=MODES, chown=OWNERS, exclude=host_paths),
        call("copy", WORDS, PATHS, context=PATHS),
        call("copy", WORDS, PATHS, from_=images),
        call("file", PATHS, st.one_of(st.text(), st.binary()), chmod=MODES, chown=OWNERS),
        call("env", PAIRS),
        call("label", PAIRS),
        many("apt", WORDS),
        many("apk", WORDS),
        many("pip", WORDS),
        call("pip", requirements=PATHS, python=WORDS),
        many("expose", st.one_of(st.integers(0, 65535), st.sampled_from(["53/udp", "80-90", "1-2/sctp"]))),
        many("volume", PATHS),
        *(call(name, TEXTS) for name in ("workdir", "user")),
        *(call(name, COMMANDS) for name in ("cmd", "entrypoint")),
        call("shell", st.lists(TEXTS, min_size=1)),
        call("stop_signal", st.sampled_from(["SIGTERM", "quit", 9, "RTMIN+1"])),
        call("healthcheck", COMMANDS, interval=SECONDS, timeout=SECONDS, start_period=SECONDS, retries=st.integers(1)),
        call("healthcheck", st.none()),
        call("with_layer", st.sampled_from(ODD_LAYERS)),
    )


ODD_LAYERS = [
    OnBuild(trigger="RUN x"),
    Download(url="https://a/b", target="/c", checksum="sha256:" + "0" * 64),
    Copy(inline=(("a", b"\xff"),), target="x", link=True),
    Copy(sources=("a",), target="x", unpack=True, context=Context(directory="/c", ignore_files=("/i",))),
    Run(
        command="x",
        mounts=(
            CacheMount(target="/c", mode=0o700, from_=Image.pull("a")),
            BindMount(target="/b", context=Context.of("/c")),
            TmpfsMount(target="/t", size=5),
            SecretMount(id="s", env="S"),
            FileMount(target="/f", content=b"x"),
        ),
    ),
]
BASES = st.one_of(
    st.builds(Image.host),
    st.builds(Image.scratch),
    st.builds(Image.pull, WORDS, st.one_of(st.none(), WORDS)),
    st.builds(Image.archive, PATHS),
    st.builds(Image.debian, WORDS, st.lists(WORDS, max_size=2), st.sampled_from([None, "20260101T000000Z"])),
    st.builds(Image.dockerfile, PATHS, st.one_of(st.none(), WORDS), PAIRS, secrets=st.dictionaries(WORDS, PATHS)),
)


def build(base: Image, layers: list[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> Image:
    for name, args, words in layers:
        base = getattr(base, name)(*args, **words)
    return base


IMAGES = st.recursive(BASES, lambda images: st.builds(build, images, st.lists(calls(images), max_size=4)), max_leaves=4)


@given(IMAGES)
def test_a_repr_can_be_pasted_back(image: Image) -> None:
    assert eval(repr(image), dict(NAMES)) == image


@given(IMAGES)
def test_an_image_is_equal_to_its_pickle(image: Image) -> None:
    again = pickle.loads(pickle.dumps(image))
    assert again == image
    assert hash(again) == hash(image)
    assert again.key() == image.key()


@given(IMAGES, IMAGES)
def test_images_are_equal_where_they_are_made_alike(one: Image, other: Image) -> None:
    assert (one == other) == ((one.base, one.layers) == (other.base, other.layers))
    assert one.env(A="1") != one


def test_a_repr_is_what_one_would_write() -> None:
    image = Image.debian("bookworm").apt("nginx-light").env(A="1").run(["make"], network="host", cache=["/c"])
    assert repr(image) == (
        "Image.debian('bookworm').apt('nginx-light').env(A='1').run(['make'], network='host', cache=['/c'])"
    )


def test_declaring_touches_nothing(tmp_path: Path) -> None:
    script = """
import os, sys
from pytest_sandbox_runtime.specs import Image
import pytest_sandbox_runtime.specs.keys, pytest_sandbox_runtime.specs.layers, pytest_sandbox_runtime.specs.spelling  # reading these is not what is meant
def refuse(event, args):
    if event in ("open", "os.listdir", "os.scandir", "subprocess.Popen", "socket.connect"):
        raise SystemExit(f"{event} {args}")
sys.addaudithook(refuse)
image = (Image.dockerfile("none", contexts={"a": Image.archive("none.tar")}).copy(["*.py", "/none"], "/x")
    .run("x", secrets={"t": "none"}).file("/a", "b").pip(requirements="none").apt("a").apk("b").healthcheck("c"))
repr(image), hash(image), image.key()
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_an_image_is_the_host_unless_it_says_otherwise() -> None:
    assert Image() == Image.host() == SandboxSpec().image
    assert Image.host().is_host
    assert not Image.host().run("x").is_host
    assert [Image.archive("/a").path, Image.archive("/a").env(A="1").path, Image.host().path] == ["/a", None, None]
    assert [image.kind for image in (Image.host(), Image.archive("/a").env(A="1"))] == ["host", "archive"]
    assert [str(image) for image in (Image.host(), Image.archive("/a"), Image.pull("a").env(B="1"))] == [
        "the host",
        "/a",
        "Image.pull('a').env(B='1')",
    ]


def test_an_image_cannot_be_changed() -> None:
    image = Image.pull("a")
    image.env(A="1")
    assert image == Image.pull("a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        image.layers = ()  # type: ignore[misc]


# Keys


def test_a_key_is_of_the_declaration_alone() -> None:
    def declared(where: str) -> Image:
        base = Image.archive(f"{where}/a.tar").copy("x", "/y", context=where).pip(requirements=f"{where}/r.txt")
        return base.run("z", secrets={"token": f"{where}/token"}, cache=["/c"])

    assert declared("/one").key() == declared("/two").key()


def test_a_key_is_the_same_in_every_process_and_version() -> None:
    script = "from pytest_sandbox_runtime.specs import Image; print(Image.pull('a').env(A='1').file('/b', 'c').key())"
    keys = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.decode()
        for seed in ("1", "2")
    }
    # Whoever changes this throws away everybody's cache.
    assert keys == {"sha256:65b8fd3fe2a2c262f181a40e5fbbb235f5236bb98bd3b283fd1ff869bcfcbf8e\n"}


@given(IMAGES, IMAGES)
def test_keys_differ_where_more_than_places_differ(one: Image, other: Image) -> None:
    if one.key() != other.key():
        assert one != other
    else:
        assert [type(layer) for layer in one.layers] == [type(layer) for layer in other.layers]


@pytest.mark.parametrize(
    "other",
    [
        Image.pull("a", "linux/arm64").run("x"),
        Image.pull("b").run("x"),
        Image.pull("a").run(["x"]),
        Image.pull("a").run("x", network="host"),
        Image.pull("a").run("x", env={"A": "1"}),
        Image.pull("a").run("x", cache=["/c"]),
        Image.pull("a").run("x", secrets={"a": "/b"}),
        Image.pull("a").run("x").run("x"),
        Image.pull("a"),
        Image.pull("a").copy("x", "/y"),
        Image.pull("a").copy("x", "/y", from_=Image.pull("b")),
        Image.pull("a").copy("x", "/y", from_=Image.pull("c")),
    ],
)
def test_another_declaration_has_another_key(other: Image) -> None:
    assert other.key() != Image.pull("a").run("x").key()


# Contexts


def context_of(image: Image) -> tuple[str, tuple[str, ...]]:
    (layer,) = image.layers
    assert isinstance(layer, Copy)
    assert layer.context is not None
    assert layer.context.ignore_files == (f"{layer.context.directory}/.dockerignore",)
    return layer.context.directory, layer.sources


def test_files_are_copied_from_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert context_of(Image().copy(["a", "b/c"], "/x")) == (str(tmp_path), ("a", "b/c"))
    assert context_of(Image().copy(tmp_path / "a" / "b", "/x")) == (str(tmp_path), ("a/b",))
    assert context_of(Image().copy(".", "/x")) == (str(tmp_path), (".",))


def test_files_elsewhere_are_copied_from_the_folder_that_has_them() -> None:
    assert context_of(Image().copy("/srv/a/b", "/x")) == ("/srv/a", ("b",))
    assert context_of(Image().copy(["/srv/a/b", "/srv/c/d"], "/x")) == ("/srv", ("a/b", "c/d"))
    assert context_of(Image().copy("/srv/a*/b/*.py", "/x")) == ("/srv", ("a*/b/*.py",))


def test_files_are_copied_from_the_context_that_is_named() -> None:
    assert context_of(Image().copy(["a", "/srv/b"], "/x", context="/srv")) == ("/srv", ("a", "b"))
    with pytest.raises(SpecError, match="/etc/a is not in the context /srv"):
        Image().copy("/etc/a", "/x", context="/srv")


# Packages


def test_packages_stand_for_steps() -> None:
    apt, pip, apk = Apt(packages=("a", "b")).as_run(), Pip(packages=("c",)).as_run(), Apk(packages=("d",)).as_run()
    assert [run.network for run in (apt, pip, apk)] == ["host"] * 3
    assert apt.command[-2:] == ("a", "b")
    assert dict(apt.env)["DEBIAN_FRONTEND"] == "noninteractive"
    assert "--no-install-recommends" in apt.command[2]
    assert "--no-install-recommends" not in Apt(packages=("a",), recommends=True).as_run().command[2]
    assert "update" not in Apt(packages=("a",), update=False).as_run().command[2]
    assert "--no-compile" in pip.command
    assert dict(pip.env)["PYTHONDONTWRITEBYTECODE"] == "1"
    assert {"SOURCE_DATE_EPOCH"} <= set(dict(pip.env)) & set(dict(apt.env)) & set(dict(apk.env))


def test_a_requirements_file_is_seen_and_nothing_beside_it() -> None:
    run = Pip(requirements="/srv/requirements.txt", packages=("a",)).as_run()
    (mount,) = [mount for mount in run.mounts if isinstance(mount, BindMount)]
    assert (mount.context, mount.source) == (Context(directory="/srv"), "requirements.txt")
    assert run.command[-3:] == ("a", "-r", mount.target)


def test_what_a_requirements_file_names_is_seen_as_well(tmp_path: Path) -> None:
    files = {
        "app/main.txt": "-r more.txt\nflask  # -r no.txt\n  --constraint=../pins.txt # why\n--requirement sub/deep.txt\n",
        "app/more.txt": "-rmain.txt\n-c https://example.org/-c/x.txt\n#-r no.txt\n--require-hashes\n-cmore.txt",
        "pins.txt": "",
        "app/sub/deep.txt": "-r gone.txt\n-e ./project\n-r ${VARIABLE}\n--find-links wheels",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    run = Pip(requirements=str(tmp_path / "app/main.txt")).as_run()
    mounts = {mount.source: mount.target for mount in run.mounts if isinstance(mount, BindMount)}
    assert sorted(mounts) == [*sorted(set(files) - {"pins.txt"} | {"app/sub/gone.txt"}), "pins.txt"]
    assert run.command[-2:] == ("-r", mounts["app/main.txt"])
    assert mounts["pins.txt"] == "/tmp/requirements/pins.txt"


# What is wrong


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: Image("debian"), "'debian' is no base"),  # type: ignore[arg-type]
        (lambda: Image.pull(""), "'' names no image"),
        (lambda: Image.pull("a b"), "'a b' names no image"),
        (lambda: Image.pull("a", platform=" "), "' ' is no platform"),
        (lambda: Image.dockerfile("a", contexts={"b": "c"}), "contexts has b='c', which is no Image"),  # type: ignore[dict-item]
        (lambda: Image.dockerfile("a", args={"b": 1}), "args has b= 1 is no text"),  # type: ignore[dict-item]
        (lambda: Image.debian("a b"), "the suite: 'a b' is no package"),
        (lambda: Image.debian("a", snapshot="today"), "snapshot='today' is no time"),
        (lambda: Image().with_layer("x"), "'x' is no layer"),  # type: ignore[arg-type]
        (lambda: Image().run(""), "the step '' is no command"),
        (lambda: Image().run([]), "the step () is no command"),
        (lambda: Image().run(["a", 1]), "the step has the word 1 is no text"),  # type: ignore[list-item]
        (lambda: Image().run("a", network="bridge"), "network='bridge' is none of none, host"),
        (lambda: Image().run("a", env={"B=": ""}), "env has 'B=': ''"),
        (lambda: Image().run("a", cache=["/"]), "the target '/' of a cache mount is the whole root"),
        (lambda: Image().copy([], "/a"), "nothing to copy to /a"),
        (lambda: Image().copy("", "/a"), "the source '' is no text"),
        (lambda: Image().copy("a", ""), "the target '' is no text"),
        (lambda: Image().copy("a", "/b", chmod="rwx"), "chmod='rwx' is no mode"),
        (lambda: Image().copy("a", "/b", chmod=0o10000), "chmod='10000' is no mode"),
        (lambda: Image().copy("a", "/b", chmod=True), "chmod=True is no mode"),
        (lambda: Image().copy("a", "/b", chown="a:b:c"), "chown='a:b:c' is no owner"),
        (lambda: Image().file("a", "b"), "the file 'a' is no absolute path"),
        (lambda: Image().file("/a/../b", "b"), "the file '/a/../b' is no absolute path"),
        (lambda: Image().file("/a/", "b"), "the file '/a/' is a directory"),
        (lambda: Image().file("/a", 5), "the content of /a is int"),  # type: ignore[arg-type]
        (lambda: Image().env({"": "a"}), "env has '': 'a'"),
        (lambda: Image().env(A=1), "env has 'A': 1"),  # type: ignore[arg-type]
        (lambda: Image().workdir(""), "the workdir '' is no text"),
        (lambda: Image().user(""), "the user '' is no text"),
        (lambda: Image().apt(), ".apt() names no package"),
        (lambda: Image().apt("a b"), ".apt(): 'a b' is no package"),
        (lambda: Image().apt("--force-yes"), ".apt(): '--force-yes' is no package"),
        (lambda: Image().pip(), ".pip() names no package"),
        (lambda: Image().pip("-r x"), ".pip(): '-r x' is no requirement"),
        (lambda: Image().apk(), ".apk() names no package"),
        (lambda: Image().expose("http"), "'http' is no port"),
        (lambda: Image().expose("90-80"), "the ports 90-80 are not"),
        (lambda: Image().label({"": ""}), "a label's name '' is no text"),
        (lambda: Image().healthcheck(None, interval=1), "without a health check there is nothing to time"),
        (lambda: Image().healthcheck("a", interval="soon"), "'soon' is no duration"),
        (lambda: Image().healthcheck("a", retries=-1), "retries=-1 is no number"),
        (lambda: Image().volume(""), "the volume '' is no text"),
        (lambda: Image().stop_signal("STOP IT"), "'STOP IT' is no signal"),
        (lambda: Image().stop_signal(0), "'0' is no signal"),
        (lambda: Image().shell("/bin/sh -c"), "the shell '/bin/sh -c' is no argv"),
        (lambda: BindMount(target="/a"), "the mount on /a needs one of context and from_"),
        (lambda: CacheMount(target="/a", mode=-1), "mode=-1 of the mount on /a cannot be"),
        (lambda: Download(url="ftp://a", target="b"), "'ftp://a' is no http or https address"),
        (lambda: File(path="/a", content="b"), "the content of /a is str"),  # type: ignore[arg-type]
        (lambda: Context(directory="a"), "the context 'a' is no absolute path"),
    ],
)
def test_what_can_never_be_built_is_said_at_once(declare: Any, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        declare()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("1m30s", 90), ("1.5s", 1.5), ("100ms", 0.1), ("2h", 7200), ("0", 0), (5, 5), (0.5, 0.5), ("1h1m1s1ms", 3661.001)],
)
def test_durations_are_docker_s_or_seconds(said: str | float, seconds: float) -> None:
    assert parse_duration(said) == seconds


@pytest.mark.parametrize("said", ["", "1", "s", "1x", "-1s", -1, True, "1 s", float("nan"), float("inf"), None, "1s\n"])
def test_other_durations_are_refused(said: Any) -> None:
    with pytest.raises(SpecError, match="is no duration"):
        parse_duration(said)
