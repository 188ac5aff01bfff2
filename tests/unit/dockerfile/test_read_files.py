"""Dockerfiles on disk, and what is wrong in them."""

from __future__ import annotations

import os
import pickle
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox_runtime.errors import DockerfileError, ImageError
from pytest_sandbox_runtime.images.config import config_of
from pytest_sandbox_runtime.images.dockerfile import read, read_text, resolve
from pytest_sandbox_runtime.specs import (
    Copy,
    Image,
    Label,
    Run,
    SecretMount,
)

DIGEST = "sha256:" + "ab" * 32


def image_of(text: str, **words: Any) -> Image:
    return read_text(textwrap.dedent(text), **words)


def runs(image: Image) -> list[Run]:
    return [layer for layer in image.layers if isinstance(layer, Run)]


# Files


def test_a_folder_has_a_dockerfile_which_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch AS a\nRUN a\nFROM a\nARG x\nCOPY f$x /\n")
    declared = Image.dockerfile(tmp_path, args={"x": "1"})
    image = read(tmp_path, args={"x": "1"})
    assert image == resolve(declared) == read(tmp_path / "Dockerfile", args={"x": "1"})
    copy = image.layers[1]
    assert isinstance(copy, Copy)
    assert copy.context is not None
    assert copy.context.directory == str(tmp_path)
    more = Image.dockerfile(tmp_path, target="a").env(A="1")
    assert resolve(more) == Image.scratch().run("a", network="host").env(A="1")
    assert resolve(Image.host()) == Image.host()


def test_layers_over_a_dockerfile_take_it_for_a_base(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCMD a\nONBUILD RUN x\n")
    declared = Image.dockerfile(tmp_path)
    assert resolve(declared.env(A="1")) == Image.scratch().cmd("a").env(A="1")
    assert resolve(declared.entrypoint(["b"]).cmd("c")) == Image.scratch().entrypoint(["b"]).cmd("c")
    assert resolve(declared.cmd("c").entrypoint(["b"])) == Image.scratch().cmd("a").cmd("c").entrypoint(["b"])


def test_the_name_of_an_argument_may_be_a_variable() -> None:
    image = image_of("ARG n=a\nARG ${n}b=1\nFROM scratch\nARG ab\nENV c=d\nARG x$c=2 \nLABEL l=$ab$xd")
    assert image.layers[-1] == Label(labels=(("l", "12"),))


def test_a_context_may_be_a_dockerfile(tmp_path: Path) -> None:
    for name, text in {"a": "FROM scratch\nENV A=1", "b": "FROM a\nENV B=$A"}.items():
        (tmp_path / name).write_text(text)
    image = Image.dockerfile(tmp_path / "b", contexts={"a": Image.dockerfile(tmp_path / "a")})
    resolved = resolve(image, base_config=lambda base: config_of(resolve(base)))
    assert resolved == Image.scratch().env(A="1").env(B="1")


def test_a_containerfile_is_taken_where_there_is_no_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM a")
    assert read(tmp_path) == Image.pull("a")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DockerfileError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{tmp_path}/Dockerfile: it cannot be read: No such file or directory"


# What is wrong


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN x", "Dockerfile:1: RUN: it stands before the first FROM\n  hint: only ARG can"),
        ("ARG x=1", "Dockerfile: there is no FROM in it"),
        ("FROM a\nRNU x", "Dockerfile:2: unknown instruction RNU\n  hint: did you mean RUN?"),
        ("FROM a\nxyz", "Dockerfile:2: unknown instruction XYZ\n  hint: there are ADD, ARG"),
        ("FROM", "Dockerfile:1: FROM: it is followed by an image"),
        ("FROM a b", "Dockerfile:1: FROM: it is followed by an image"),
        ("FROM a AS 1", "Dockerfile:1: FROM: '1' cannot name a stage"),
        ("FROM $x", "Dockerfile:1: FROM: $x is empty"),
        ("FROM ${x", "Dockerfile:1: FROM: syntax error: missing '}'"),
        ("FROM --platform=$x a", "Dockerfile:1: FROM: --platform=$x is empty"),
        ("FROM --platfrom=x a", "Dockerfile:1: FROM: unknown flag --platfrom\n  hint: did you mean --platform?"),
        ("FROM a\nUSER --x y", "Dockerfile:2: USER: unknown flag --x\n  hint: USER takes none"),
        ("FROM a\nCOPY --chown a b", "Dockerfile:2: COPY: --chown has no value\n  hint: --chown=..."),
        ("FROM a\nCOPY --chown=a --chown=b a b", "Dockerfile:2: COPY: --chown is given twice"),
        ("FROM a\nCOPY --link=maybe a b", "Dockerfile:2: COPY: --link=maybe is neither true nor false"),
        ("FROM a\nCOPY --parents a b", "Dockerfile:2: COPY: --parents is not supported"),
        ("FROM a\nCOPY --checksum=x a b", "Dockerfile:2: COPY: unknown flag --checksum"),
        ("FROM a\nCOPY --chmod=999 a b", "Dockerfile:2: COPY: chmod='999' is no mode"),
        ("FROM a\nCOPY --from=$x a b", "Dockerfile:2: COPY: --from takes no variable"),
        ("FROM a\nCOPY a", "Dockerfile:2: COPY: it is followed by at least one source and the target"),
        ("FROM a\nCOPY a <<x\nx", "Dockerfile:2: COPY: the target is missing behind <<x"),
        ("FROM a\nADD http://a/b http://a/c /d", "Dockerfile:2: ADD: several files cannot all become /d: end it with"),
        ("FROM a\nADD http://a/b file d", "Dockerfile:2: ADD: several files cannot all become d"),
        ("FROM a\nCOPY http://a/b c", "Dockerfile:2: COPY: http://a/b is no path"),
        ("FROM a\nCOPY $x b", "Dockerfile:2: COPY: a source is empty"),
        ("FROM a\nADD https://github.com/a/b.git c", "Dockerfile:2: ADD: https://github.com/a/b.git: git"),
        ("FROM a\nADD git@github.com:a/b c", "Dockerfile:2: ADD: git@github.com:a/b: git"),
        ("FROM a\nADD --checksum=sha256:1 http://a c", "Dockerfile:2: ADD: 'sha256:1' is no checksum"),
        (f"FROM a\nADD --checksum={DIGEST} a c", "Dockerfile:2: ADD: --checksum is for one address"),
        ("FROM a\nRUN", "Dockerfile:2: RUN: it is followed by a command"),
        ("FROM a\nRUN []", "Dockerfile:2: RUN: its list is empty"),
        ("FROM a\nRUN --security=insecure x", "Dockerfile:2: RUN: --security=insecure is not supported"),
        ("FROM a\nRUN --network=bridge x", "Dockerfile:2: RUN: --network=bridge is none of default, none, host"),
        ("FROM a\nRUN --device=x x", "Dockerfile:2: RUN: --device is not supported"),
        ("FROM a\nRUN --mount=type=ssh x", "Dockerfile:2: RUN: a mount of type ssh cannot be had here"),
        ("FROM a\nRUN --mount=type=volume,target=/x x", "Dockerfile:2: RUN: there is no mount of type 'volume'"),
        (
            "FROM a\nRUN --mount=tpye=bind x",
            "Dockerfile:2: RUN: --mount has no option 'tpye'\n  hint: did you mean type?",
        ),
        (
            "FROM a\nRUN --mount=type=cache,size=1,target=/x x",
            "Dockerfile:2: RUN: a mount of type cache takes no size=",
        ),
        ("FROM a\nRUN --mount=type=cache x", "Dockerfile:2: RUN: a mount of type cache needs target="),
        ("FROM a\nRUN --mount=type=cache,target x", "Dockerfile:2: RUN: the option target of --mount has no value"),
        ("FROM a\nRUN --mount=type=cache,target=/ x", "Dockerfile:2: RUN: the target '/' of a cache mount"),
        ("FROM a\nRUN --mount=type=cache,target=/x,mode=9 x", "Dockerfile:2: RUN: mode=9 is no octal number"),
        ("FROM a\nRUN --mount=type=cache,target=/x,sharing=x x", "Dockerfile:2: RUN: sharing='x' is none of"),
        ("FROM a\nRUN --mount=type=cache,target=/x,ro=x x", "Dockerfile:2: RUN: readonly=x is neither true nor false"),
        ("FROM a\nRUN --mount=type=secret x", "Dockerfile:2: RUN: a mount of type secret needs id= or target="),
        ("FROM a\nRUN --mount=type=secret,id=a,src=b x", "Dockerfile:2: RUN: a secret has one of source= and id="),
        ("FROM a\nRUN --mount=from=$x,target=/y x", "Dockerfile:2: RUN: from= of --mount takes no variable"),
        ("FROM a\nRUN --mount='\"a' x", "Dockerfile:2: RUN: --mount="),
        ("FROM a\nENV x", "Dockerfile:2: ENV: x has no value"),
        ("FROM a\nENV x=1 y", "Dockerfile:2: ENV: 'y' is no name=value"),
        ("FROM a\nENV", "Dockerfile:2: ENV: it is followed by name=value"),
        ("FROM a\nENV =1", "Dockerfile:2: ENV: '=1' is no name=value"),
        ("FROM a\nENV a='x", "Dockerfile:2: ENV: a single quote is not closed"),
        ("FROM a\nARG", "Dockerfile:2: ARG: it is followed by name, or name=value"),
        ("FROM a\nARG x=${y:?give}", "Dockerfile:2: ARG: y: give"),
        ("FROM a\nWORKDIR", "Dockerfile:2: WORKDIR: it is followed by one argument"),
        ("FROM a\nWORKDIR $x", "Dockerfile:2: WORKDIR: the workdir '' is no text"),
        ("FROM a\nEXPOSE 70000", "Dockerfile:2: EXPOSE: the ports 70000 are not"),
        ("FROM a\nEXPOSE 80/icmp", "Dockerfile:2: EXPOSE: '80/icmp' is no port"),
        ("FROM a\nSTOPSIGNAL SIGFOO", "Dockerfile:2: STOPSIGNAL: 'SIGFOO' is no signal"),
        ("FROM a\nSHELL /bin/sh -c", "Dockerfile:2: SHELL: it is followed by a JSON list"),
        ("FROM a\nSHELL []", "Dockerfile:2: SHELL: its list is empty"),
        ('FROM a\nVOLUME [""]', "Dockerfile:2: VOLUME: the volume '' is no text"),
        ("FROM a\nHEALTHCHECK", "Dockerfile:2: HEALTHCHECK: it is followed by CMD and a command, or by NONE"),
        ("FROM a\nHEALTHCHECK curl", "Dockerfile:2: HEALTHCHECK: it is followed by CMD"),
        ("FROM a\nHEALTHCHECK NONE x", "Dockerfile:2: HEALTHCHECK: NONE takes no arguments"),
        ("FROM a\nHEALTHCHECK --interval=x CMD y", "Dockerfile:2: HEALTHCHECK: 'x' is no duration"),
        ("FROM a\nHEALTHCHECK --interval=1us CMD y", "Dockerfile:2: HEALTHCHECK: the duration '1us' is less than"),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD y", "Dockerfile:2: HEALTHCHECK: --retries=-1 is no number of times"),
        ("FROM a\nONBUILD", "Dockerfile:2: ONBUILD: it is followed by an instruction"),
        ("FROM a\nONBUILD FROM b", "Dockerfile:2: ONBUILD: it is followed by an instruction other than FROM"),
        ("FROM a\nONBUILD ONBUILD RUN b", "Dockerfile:2: ONBUILD: it is followed by an instruction other than FROM"),
        ("FROM a\nONBUILD RNU b", "Dockerfile:2: unknown instruction RNU"),
        ("FROM a AS x\nONBUILD WORKDIR $no\n\nFROM x", "Dockerfile:4: FROM: the workdir '' is no text"),
        ("FROM a AS x\nCOPY --from=x a b", "Dockerfile:2: COPY: a cycle of stages: x needs itself"),
        ("FROM a\nCOPY --from=0 a b", "Dockerfile:2: COPY: a cycle of stages: 0 needs itself"),
        (
            "FROM a AS x\nCOPY --from=y a b\nFROM a AS y\nRUN --mount=from=x,target=/t b\nFROM x",
            "Dockerfile:2: COPY: a cycle of stages: x needs y, which needs x",
        ),
        ("FROM a AS x\nCOPY --from=y a b\nFROM x AS y", "Dockerfile:2: COPY: a cycle of stages: x needs y, which"),
        (
            "FROM a AS x\nCOPY --from=y a b\nFROM b AS y\nFROM x",
            "Dockerfile:2: COPY: the stage y is defined only below\n  hint: move it above this one",
        ),
        ("FROM a\nCOPY --from=3 a b", "Dockerfile:2: COPY: there is no stage 3\n  hint: the last one is 0"),
        ("FROM a\nRUN \\\n  a \\\n# b\n  && --c\nUSRE d", "Dockerfile:6: unknown instruction USRE"),
    ],
)
def test_an_error_names_the_line_and_the_instruction(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        read_text(text)
    assert str(caught.value).startswith(message)
    assert isinstance(caught.value, ImageError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert (again.line, again.instruction) == (caught.value.line, caught.value.instruction)


def test_an_unknown_target_is_said_with_a_near_one() -> None:
    with pytest.raises(DockerfileError) as caught:
        read_text("FROM a AS build\nFROM b AS run", target="biuld")
    assert str(caught.value) == "Dockerfile: there is no stage 'biuld'\n  hint: did you mean build?"


def test_an_argument_that_nothing_declares_is_said() -> None:
    with pytest.raises(DockerfileError) as caught:
        read_text("FROM a\nARG VERSION", args={"VERSOIN": "1"})
    assert str(caught.value) == ("Dockerfile: args has VERSOIN, which no ARG declares\n  hint: did you mean VERSION?")


def test_secrets_are_files_by_id_and_no_part_of_the_key(tmp_path: Path) -> None:
    text = "FROM scratch\nRUN --mount=type=secret,id=a --mount=type=secret,id=b,env=B x"
    (run,) = runs(image_of(text, secrets={"a": "/files/a"}))
    assert [mount.source for mount in run.mounts if isinstance(mount, SecretMount)] == ["/files/a", None]
    assert image_of(text, secrets={"a": "/files/a"}).key() == image_of(text).key()
    image = Image.dockerfile(tmp_path, secrets={"a": "relative"})
    assert image.key() == Image.dockerfile("/elsewhere").key()
    assert repr(image) == f"Image.dockerfile({str(tmp_path)!r}, secrets={{'a': {os.path.abspath('relative')!r}}})"
