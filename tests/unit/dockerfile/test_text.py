"""Images as Dockerfiles: what is written is read back as the same build."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.images.config import author_of, config_of, steps
from pytest_sandbox_runtime.images.dockerfile import read_text
from pytest_sandbox_runtime.specs import (
    Author,
    BindMount,
    CacheMount,
    Context,
    Copy,
    Download,
    Entrypoint,
    File,
    FileMount,
    Healthcheck,
    Image,
    OnBuild,
    Run,
    SecretMount,
    TmpfsMount,
)

CONTEXT = Context.of("/ctx")


def build_of(image: Image) -> list[Any]:
    """Return what building ``image`` amounts to, step by step, whatever layers say so."""
    done: list[Any] = [image.base]
    for step in steps(image.layers):
        layer = step.layer
        env = list(step.environment.items())
        if step.run is not None:
            argv, assigned = list(step.argv), dict(env)
            if argv[0] == "env":
                argv.pop(0)
                while "=" in argv[0]:
                    name, _, value = argv.pop(0).partition("=")
                    assigned[name] = value
            mounts = [mount_of(mount) for mount in step.run.mounts]
            done.append((argv, sorted(assigned.items()), step.run.network, mounts, step.workdir, step.user))
        elif isinstance(layer, File):
            done.append((step.path(layer.path), layer.content, layer.chmod, layer.chown))
        elif (
            isinstance(layer, Copy) and len(layer.inline) == 1 and not layer.sources and not layer.target.endswith("/")
        ):
            done.append((step.path(layer.target), layer.inline[0][1], layer.chmod, layer.chown))
        elif isinstance(layer, Copy):
            source = layer.context.directory if layer.context is not None else layer.from_ and build_of(layer.from_)
            words = (layer.sources, step.path(layer.target), layer.inline, layer.chmod, layer.chown, layer.exclude)
            done.append((words, layer.unpack, layer.link, source))
        elif step.changes_files:
            done.append(layer)
    return [*done, author_of(image), config_of(image)]


def mount_of(mount: Any) -> Any:
    source = getattr(mount, "from_", None)
    words = {name: value for name, value in vars(mount).items() if name not in ("from_", "context")}
    if isinstance(mount, SecretMount):
        words.pop("source")  # it is not the Dockerfile's to say
    return (type(mount), sorted(words.items(), key=str), source and build_of(source))


def read_back(text: str) -> Image:
    return read_text(text, context=CONTEXT)


TEXTS = st.text(alphabet="ab \t\\$\"'`#-[]<=é{}", max_size=8)
SOME_TEXT = TEXTS.filter(str.strip)
LINES = st.lists(TEXTS, min_size=1, max_size=3).map("\n".join).filter(str.strip)
NAMES = st.sampled_from(["A", "B", "C_1"])
PATHS = st.lists(st.text(alphabet="ab$'\" *", min_size=1, max_size=4).filter(str.strip), min_size=1, max_size=2).map(
    "/".join
)
PLAIN_PATHS = st.lists(st.text(alphabet="ab$'*", min_size=1, max_size=4), min_size=1, max_size=2).map(
    lambda p: "/" + "/".join(p)
)
PAIRS = st.dictionaries(NAMES, TEXTS, min_size=1)
COMMANDS = st.one_of(LINES, st.lists(LINES, min_size=1, max_size=3).filter(lambda argv: "=" not in argv[0]))
CONTENTS = st.one_of(st.just(""), LINES.map(lambda lines: lines + "\n"))
MOUNTS = st.sampled_from(
    [
        CacheMount(target="/c", id="i", sharing="locked", mode=0o700, uid=1, read_only=True),
        CacheMount(target="/c", from_=Image.pull("d"), source="/s"),
        BindMount(target="/b", context=CONTEXT, source="s"),
        BindMount(target="/b", from_=Image.pull("d").env(A="1"), read_only=False),
        BindMount(target="/b", from_=Image.scratch()),
        TmpfsMount(target="/t", size=5),
        SecretMount(id="s", env="S", required=True),
        SecretMount(id="s", target="/x", mode=0o444),
    ]
)


def layered(images: st.SearchStrategy[Image]) -> st.SearchStrategy[Image]:
    def grow(image: Image, calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> Image:
        for name, args, words in calls:
            image = getattr(image, name)(*args, **words)
        return image

    def call(name: str, *args: st.SearchStrategy[Any], **words: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.tuples(st.just(name), st.tuples(*args), st.fixed_dictionaries(words))

    sources = st.lists(PATHS, min_size=1, max_size=2)
    runs = st.builds(
        lambda command, env, mounts: Run(
            command=command if isinstance(command, str) else tuple(command), env=tuple(env.items()), mounts=(*mounts,)
        ),
        COMMANDS,
        st.dictionaries(NAMES, TEXTS),
        st.lists(MOUNTS, max_size=2),
    )
    documents = st.builds(lambda content: Copy(inline=(("x", content.encode()), ("y", b"")), target="/d/"), CONTENTS)
    shells = st.just(["/bin/bash", "-c"])
    return st.builds(
        grow,
        images,
        st.lists(
            st.one_of(
                call("with_layer", runs),
                call("run", COMMANDS, network=st.sampled_from(["none", "host"])),
                call("copy", sources, PATHS, context=st.just("/ctx"), exclude=st.lists(SOME_TEXT, max_size=1)),
                call("copy", sources, PATHS, from_=images, chown=st.sampled_from(["a", "1:2"])),
                call("with_layer", documents),
                call("file", PLAIN_PATHS, CONTENTS, chmod=st.sampled_from(["u+x", 0o600])),
                call("env", PAIRS),
                call("label", PAIRS),
                call("apt", st.just("a")),
                call(
                    "with_layer", st.sampled_from(["Some One <a@b>", "a\"b $c 'd"]).map(lambda name: Author(name=name))
                ),
                call("user", SOME_TEXT),
                call("workdir", SOME_TEXT),
                call("volume", SOME_TEXT.map(str.strip)),
                call("cmd", COMMANDS),
                call("entrypoint", COMMANDS),
                call("shell", shells),
                call("expose", st.sampled_from([80, "1-3/udp"])),
                call("stop_signal", st.just("INT")),
                call("healthcheck", st.lists(LINES, min_size=1), interval=st.sampled_from([1, 0.25, None])),
            ),
            max_size=6,
        ),
    )


BASES = st.sampled_from([Image.scratch(), Image.pull("debian:12"), Image.pull("x/y@sha256:1", "linux/arm64")])


@settings(max_examples=300, deadline=None)
@given(layered(st.recursive(BASES, layered, max_leaves=3)))
@example(Image.scratch().user("--").workdir("--link"))
def test_what_is_written_is_read_back(image: Image) -> None:
    text = image.to_dockerfile()
    again = read_back(text)
    assert build_of(again) == build_of(image), text


FILES = [
    "FROM a\nARG x=1\nRUN 1\nENV y=2\nRUN 2\nARG z=$x\nRUN 3\n",
    "FROM a AS b\nCOPY x y\nRUN <<E\n1\n2\nE\nRUN <<E\n#!/bin/x\nE\nFROM c\nCOPY --from=b x y\nCMD x\n",
    "FROM a\nONBUILD COPY <<x /y\n1\nx\nONBUILD RUN x\nHEALTHCHECK --interval=1500ms CMD x\nHEALTHCHECK NONE\n",
    'FROM a\nSHELL ["x"]\nRUN y\nENTRYPOINT z\nCMD []\n',
    "FROM scratch\nADD a.tar /x\nADD --checksum=sha256:" + "0" * 64 + " https://a/b /c\nCOPY <<a <<b c /d/\n$x\na\nb\n",
]


@pytest.mark.parametrize("text", FILES)
def test_a_dockerfile_is_written_as_the_same_layers(text: str) -> None:
    image = read_back(text)
    assert read_back(image.to_dockerfile()) == image


def test_an_image_is_written_as_one_would() -> None:
    tool = Image.pull("golang:1").workdir("/src").copy(".", ".", context="/ctx").run("go build", network="host")
    image = (
        Image.scratch()
        .copy("/src/tool", "/bin/tool", from_=tool, chmod="755")
        .file("/etc/motd", "Hello $USER\n")
        .env(PATH="/bin", GREETING='say "hi"')
        .entrypoint(["/bin/tool"])
        .healthcheck("tool check", interval=30)
    )
    assert (
        image.to_dockerfile()
        == """\
FROM golang:1 AS stage0
WORKDIR /src
COPY . .
RUN go build

FROM scratch
COPY --chmod=755 --from=stage0 /src/tool /bin/tool
COPY <<"EOF" /etc/motd
Hello $USER
EOF
ENV PATH=/bin GREETING="say \\"hi\\""
ENTRYPOINT ["/bin/tool"]
HEALTHCHECK --interval=30s CMD tool check
"""
    )


def test_an_image_that_two_copy_from_is_written_once() -> None:
    one = Image.pull("a").run("x", network="host")
    text = Image.scratch().copy("/a", "/b", from_=one).copy("/c", "/d", from_=one.env(A="1")).copy("e", "/f", from_=one)
    assert text.to_dockerfile().count("AS stage") == 2


def test_a_variable_of_one_step_is_no_argument_of_the_next() -> None:
    text = Image.pull("a").run("x", env={"A": "1"}).run("y").to_dockerfile()
    assert text == 'FROM a\nRUN --network=none ["env", "A=1", "/bin/sh", "-c", "x"]\nRUN --network=none y\n'


@pytest.mark.parametrize(
    ("image", "message", "hint"),
    [
        (Image.host(), "no Dockerfile can start from Host()", "push or save what it starts from"),
        (Image.archive("/a.tar").env(A="1"), "no Dockerfile can start from Archive", "push or save"),
        (Image.debian("bookworm"), "no Dockerfile can start from Debian", "push or save"),
        (Image.dockerfile("/a"), "no Dockerfile can start from Dockerfile", "images.dockerfile.resolve"),
        (Image.pull("a").file("/b", "c"), "ends without a line break", "end it with one"),
        (Image.pull("a").file("/b", b"\xff\n"), "its content is no text", "copy it from a file"),
        (Image.pull("a").file("/b c", "c\n"), "'/b c' beside a document", "copy it from a file"),
        (Image.pull("a").env(A="1\n2"), "'1\\n2' has a line break", "write it to a file"),
        (Image.pull("a").env({"A B": "1"}), "the name 'A B'", "cannot be written"),
        (Image.pull("a").user("b\nc"), "has a line break", "write it"),
        (Image.pull("a").with_layer(Author(name="b\\")), "is no rest of a line", "one line"),
        (Image.pull("a").healthcheck("a\nb"), "the line 'a\\nb'", "as a list"),
        (Image.pull("a").run("b", cache=["/c d"]), "a mount with '/c d' in it", "can be written"),
        (
            Image.pull("a").copy("b", "/c", context="/d").copy("b", "/c", context="/e"),
            "a Dockerfile copies from one folder, and this image from /d and /e",
            "one context",
        ),
        (
            Image.pull("a").with_layer(Copy(sources=("/b",), target="/c", from_=Image.pull("d"), unpack=True)),
            "ADD unpacks no archives of other images",
            ".run()",
        ),
        (
            Image.pull("a").with_layer(Run(command="b", mounts=(FileMount(target="/c", content=b"d"),))),
            "a file that is there during a step only",
            "",
        ),
        (
            Image.pull("a").run(["b=c"], env={"D": "1"}).run("e"),
            "the program 'b=c' with variables of its own",
            "/bin/sh -c",
        ),
        (Image.pull("a$b"), "no Dockerfile can say Pull(reference='a$b'", ""),
    ],
)
def test_what_no_dockerfile_can_say_is_named(image: Image, message: str, hint: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        image.to_dockerfile()
    assert hint in caught.value.hint


def test_a_pip_requirements_file_is_of_the_context(tmp_path: Path) -> None:
    image = Image.pull("a").pip(requirements=tmp_path / "r.txt").copy(".", "/x", context=tmp_path)
    again = read_text(image.to_dockerfile(), context=Context.of(str(tmp_path)))
    assert build_of(again) == build_of(image)


def test_layers_that_only_dockerfiles_make_are_written() -> None:
    image = Image.pull("a").with_layer(OnBuild(trigger="RUN b")).with_layer(Download(url="http://c/d", target="/e"))
    image = image.with_layer(Entrypoint(command=())).with_layer(Healthcheck(command=None))
    text = "FROM a\nONBUILD RUN b\nADD http://c/d /e\nENTRYPOINT []\nHEALTHCHECK NONE\n"
    assert image.to_dockerfile() == text
    assert read_back(text) == image
