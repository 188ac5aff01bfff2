"""Dockerfiles as images: instructions, scopes, stages, triggers, and what is wrong with each."""

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
from pytest_sandbox_runtime.images.dockerfile.platform import native_platform
from pytest_sandbox_runtime.specs import (
    Author,
    BindMount,
    CacheMount,
    Cmd,
    Copy,
    Download,
    Entrypoint,
    Env,
    Expose,
    FileMount,
    Healthcheck,
    Image,
    Label,
    Layer,
    OnBuild,
    Run,
    SecretMount,
    Shell,
    StopSignal,
    TmpfsMount,
    User,
    Volume,
    Workdir,
)

DIGEST = "sha256:" + "ab" * 32


def image_of(text: str, **words: Any) -> Image:
    return read_text(textwrap.dedent(text), **words)


def layers(text: str, **words: Any) -> tuple[Layer, ...]:
    return image_of("FROM scratch\n" + textwrap.dedent(text), **words).layers


def runs(image: Image) -> list[Run]:
    return [layer for layer in image.layers if isinstance(layer, Run)]


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("RUN make install", Run(command="make install", network="host")),
        ('RUN ["make", "install"]', Run(command=("make", "install"), network="host")),
        ("RUN --network=none make", Run(command="make")),
        ("RUN --network=default --security=sandbox make", Run(command="make", network="host")),
        ("RUN <<EOF\na\nb\nEOF", Run(command="a\nb\n", network="host")),
        ("RUN <<-EOF\n\ta\n\tEOF", Run(command="a\n", network="host")),
        ("RUN cat <<A <<-B >x\n1\nA\n\t2\n\tB", Run(command="cat <<A <<-B >x\n1\nA\n\t2\nB", network="host")),
        ("ENV a=1 b='2 3' c=\"4\"", Env(variables=(("a", "1"), ("b", "2 3"), ("c", "4")))),
        ("ENV a b  c", Env(variables=(("a", "b  c"),))),
        ("LABEL a.b=1 \"c d\"='e'", Label(labels=(("a.b", "1"), ("c d", "e")))),
        ("USER $n", User(user="")),
        ("MAINTAINER Some One <a@b>", Author(name="Some One <a@b>")),
        ("WORKDIR /a b", Workdir(path="/a b")),
        ("USER 1:2", User(user="1:2")),
        ("CMD a b", Cmd(command="a b")),
        ('CMD ["a", "$b"]', Cmd(command=("a", "$b"))),
        ("CMD []", Cmd(command=())),
        ("CMD ['a']", Cmd(command="['a']")),
        ("ENTRYPOINT a", Entrypoint(command="a")),
        ('SHELL ["/bin/bash", "-c"]', Shell(command=("/bin/bash", "-c"))),
        ("EXPOSE 80 443/UDP 8000-8001", Expose(ports=("80/tcp", "443/udp", "8000-8001/tcp"))),
        ("EXPOSE 127.0.0.1:80:8080", Expose(ports=("8080/tcp",))),
        ("VOLUME /a /b", Volume(paths=("/a", "/b"))),
        ('VOLUME ["/a b"]', Volume(paths=("/a b",))),
        ("STOPSIGNAL SIGQUIT", StopSignal(signal="SIGQUIT")),
        ("STOPSIGNAL 9", StopSignal(signal="9")),
        ("STOPSIGNAL SIGRTMIN+3", StopSignal(signal="SIGRTMIN+3")),
        ("ONBUILD RUN a  b", OnBuild(trigger="RUN a  b")),
        ("ONBUILD COPY <<a /x\n1\na", OnBuild(trigger="COPY <<a /x\n1\na")),
        ("HEALTHCHECK NONE", Healthcheck(command=None)),
        ("HEALTHCHECK CMD a b", Healthcheck(command="a b")),
        (
            'HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=1h --start-interval=2s --retries=3 CMD ["a"]',
            Healthcheck(command=("a",), interval=90, timeout=0.5, start_period=3600, start_interval=2, retries=3),
        ),
        ("HEALTHCHECK --interval=0s cmd a", Healthcheck(command="a", interval=0)),
    ],
)
def test_an_instruction_is_a_layer(text: str, layer: Layer) -> None:
    assert layers(text) == (layer,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("COPY a b /x/", {"sources": ("a", "b"), "target": "/x/"}),
        ('COPY ["a b", "/x y"]', {"sources": ("a b",), "target": "/x y"}),
        ("COPY ./a/../b/ /c ../../d .", {"sources": ("b", "c", "d"), "target": "."}),
        ("COPY a $n", {"sources": ("a",), "target": "."}),
        ("COPY . x", {"sources": (".",), "target": "x"}),
        ("COPY *.py x/", {"sources": ("*.py",), "target": "x/"}),
        (
            "COPY --chown=a:b --chmod=755 --link --exclude=*.c --exclude=d a b",
            {"sources": ("a",), "target": "b", "chown": "a:b", "chmod": "755", "link": True, "exclude": ("*.c", "d")},
        ),
        ("COPY --chmod=u=rwX,go= a b", {"sources": ("a",), "target": "b", "chmod": "u=rwX,go="}),
        ("COPY --link=false --parents=false a b", {"sources": ("a",), "target": "b"}),
        ("ADD a.tar b", {"sources": ("a.tar",), "target": "b", "unpack": True}),
        ("ADD --unpack=false --keep-git-dir=true a b", {"sources": ("a",), "target": "b"}),
    ],
)
def test_copy_takes_paths_of_the_context(text: str, words: dict[str, Any]) -> None:
    (layer,) = layers(text)
    assert isinstance(layer, Copy)
    assert layer == Copy(**words, context=layer.context)
    assert layer.context is not None


def test_copy_takes_documents() -> None:
    (layer,) = layers("ENV a=1\nCOPY f <<x <<'y' /d/\n\"$a\" \\$a\nx\n$a\ny\n")[1:]
    assert isinstance(layer, Copy)
    assert layer.inline == (("x", b'"1" $a\n'), ("y", b"$a\n"))
    assert layer.sources == ("f",)


def test_a_document_alone_needs_no_context() -> None:
    assert layers("COPY <<x /d\n1\nx") == (Copy(inline=(("x", b"1\n"),), target="/d"),)


def test_add_takes_addresses() -> None:
    found = layers(f"ADD --checksum={DIGEST} --chmod=755 https://x/y.tgz /z")
    assert found == (Download(url="https://x/y.tgz", target="/z", checksum=DIGEST, chmod="755"),)
    kinds = [type(layer) for layer in layers("ADD a http://x/y .")]
    assert kinds == [Copy, Download]
    kinds = [type(layer) for layer in layers("ADD a http://x/y /z/")]
    assert kinds == [Copy, Download]


def test_a_document_with_a_program_is_run_as_a_file() -> None:
    (run,) = layers("RUN <<EOF\n#!/usr/bin/env python3\nprint()\nEOF")
    script = FileMount(target="/dev/pipes/EOF", content=b"#!/usr/bin/env python3\nprint()\n")
    assert run == Run(command=("/dev/pipes/EOF",), network="host", mounts=(script,))


@pytest.mark.parametrize(
    ("options", "mount"),
    [
        ("type=cache,target=/c", CacheMount(target="/c")),
        (
            "type=cache,id=$v,dst=/c,sharing=locked,ro,mode=0700,uid=1,gid=2",
            CacheMount(target="/c", id="1", sharing="locked", read_only=True, mode=0o700, uid=1, gid=2),
        ),
        ("type=cache,target=c,rw=false", CacheMount(target="/w/c", read_only=True)),
        ("type=tmpfs,target=/t", TmpfsMount(target="/t")),
        ("type=tmpfs,target=/t,size=64m", TmpfsMount(target="/t", size=64 << 20)),
        ("type=secret,id=a", SecretMount(id="a", target="/run/secrets/a")),
        ("type=secret,target=/x/b,required", SecretMount(id="b", target="/x/b", required=True)),
        ("type=secret,id=a,env=T", SecretMount(id="a", env="T")),
        ("type=secret,src=a,target=t,mode=440", SecretMount(id="a", target="/w/t", mode=0o440)),
        ('type=tmpfs,"target=/a,b"', TmpfsMount(target="/a,b")),
        ("type=bind,from=scratch,target=/b", BindMount(target="/b", from_=Image.scratch())),
        (
            "from=alpine:3,source=/s,target=/b,rw",
            BindMount(target="/b", from_=Image.pull("alpine:3"), source="/s", read_only=False),
        ),
    ],
)
def test_a_step_has_mounts(options: str, mount: object) -> None:
    run = layers(f"ENV v=1\nWORKDIR /w\nRUN --mount='{options}' x")[2]
    assert isinstance(run, Run)
    assert run.mounts == (mount,)


def test_a_mount_without_from_is_of_the_context() -> None:
    (run,) = layers("RUN --mount=source=a,target=/b x")
    assert isinstance(run, Run)
    (mount,) = run.mounts
    assert isinstance(mount, BindMount)
    assert mount.context is not None
    assert (mount.source, mount.read_only, mount.from_) == ("a", True, None)


# Variables


def test_variables_are_expanded_where_docker_expands_them() -> None:
    text = """
        ENV v=1 w=/w p="80 81" s=INT
        ENV v=2 u=$v
        LABEL $v=${v}x
        WORKDIR $w/a
        USER u$v
        EXPOSE $p $v
        VOLUME $w
        STOPSIGNAL SIG$s
        COPY --chown=$v --chmod=${v}44 f$v $w/
        ADD --checksum=sha256:$d http://x/$v $w/
        RUN $v
        CMD $v
        ENTRYPOINT ["$v"]
        HEALTHCHECK CMD $v
        SHELL ["$v"]
        ONBUILD RUN $v
        COPY --exclude=$v a b
    """
    found = layers(text.replace("$d", "0" * 64))
    assert found[1] == Env(variables=(("v", "2"), ("u", "1")))
    assert found[2:8] == (
        Label(labels=(("2", "2x"),)),
        Workdir(path="/w/a"),
        User(user="u2"),
        Expose(ports=("80/tcp", "81/tcp", "2/tcp")),
        Volume(paths=("/w",)),
        StopSignal(signal="SIGINT"),
    )
    assert found[8] == Copy(sources=("f2",), target="/w/", chown="2", chmod="244", context=found[8].context)  # type: ignore[union-attr]
    assert found[9] == Download(url="http://x/2", target="/w/", checksum="sha256:" + "0" * 64)
    assert found[10:16] == (
        Run(command="$v", network="host"),
        Cmd(command="$v"),
        Entrypoint(command=("$v",)),
        Healthcheck(command="$v"),
        Shell(command=("$v",)),
        OnBuild(trigger="RUN $v"),
    )
    assert found[16].exclude == ("$v",)  # type: ignore[union-attr]


def test_arguments_have_a_scope() -> None:
    text = """
        ARG a=1
        ARG b=${a}2 c
        FROM scratch AS base
        ENV none=$a
        ARG a
        ARG b=own c d=$a
        RUN one
        ENV a=env
        RUN two
        FROM base
        RUN three
        FROM scratch
        RUN four
    """
    image = image_of(text, target="1", args={"c": "given"})
    assert image.layers[0] == Env(variables=(("none", ""),))
    own = (("b", "own"), ("c", "given"), ("d", "1"))
    assert [run.env for run in runs(image)] == [(("a", "1"), *own), own, own]
    assert [run.env for run in runs(image_of(text, args={"c": "given"}))] == [()]


def test_arguments_given_go_over_defaults() -> None:
    text = "ARG tag=1\nFROM a:$tag\nARG x=2\nRUN b"
    image = image_of(text, args={"tag": "9", "x": "8"})
    assert image == Image.pull("a:9").with_layer(Run(command="b", env=(("x", "8"),), network="host"))


def test_an_argument_after_env_is_seen_by_steps_and_not_in_the_image() -> None:
    image = image_of("FROM scratch\nENV a=1\nARG a=2\nRUN x\nLABEL l=$a")
    assert runs(image)[0].env == (("a", "2"),)
    config = config_of(image)
    assert "a=1" in config["Env"]
    assert config["Labels"] == {"l": "2"}


def test_the_platform_is_known_before_and_after_from() -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM a:$TARGETARCH\nARG TARGETPLATFORM TARGETOS\nLABEL p=$TARGETPLATFORM o=$TARGETOS"
    )
    native = native_platform()
    image = image_of(text)
    assert image == Image.pull(f"a:{native.split('/')[1]}").label(p=native, o="linux")
    other = image_of(text.replace("BUILD", "TARGET"), args={"TARGETPLATFORM": "linux/arm/v7"})
    assert other == Image.pull("a:arm", platform="linux/arm/v7").label(p="linux/arm/v7", o="linux")


def test_proxies_need_no_declaration_and_are_in_no_key() -> None:
    plain, proxied = (image_of("FROM scratch\nRUN x", args=args) for args in ({}, {"HTTPS_PROXY": "http://p"}))
    assert runs(proxied)[0].env == (("HTTPS_PROXY", "http://p"),)
    assert plain.key() == proxied.key()


def base_config(image: Image) -> dict[str, Any]:
    return {"Env": ["PATH=/base", "V=1"], "WorkingDir": "/srv", "OnBuild": ["RUN t1 $V", "COPY --from=tool a b"]}


def test_the_base_has_variables_and_a_workdir() -> None:
    image = image_of(
        """
        FROM scratch AS tool
        FROM base
        ENV PATH=$PATH:/own v=$V
        RUN --mount=type=cache,target=c x
        """,
        base_config=lambda image: {} if image == Image.scratch() else base_config(image),
    )
    assert Env(variables=(("PATH", "/base:/own"), ("v", "1"))) in image.layers
    assert runs(image)[-1].mounts == (CacheMount(target="/srv/c"),)


def test_without_a_base_there_is_a_path() -> None:
    assert layers("ENV PATH=$PATH:/x") == (
        Env(variables=(("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/x"),)),
    )


# Triggers


def test_triggers_of_an_image_are_carried_out_first() -> None:
    image = image_of(
        "FROM scratch AS tool\nFROM base\nRUN own",
        base_config=lambda image: {} if image == Image.scratch() else base_config(image),
    )
    first, copied, own = image.layers
    assert (first, own) == (Run(command="t1 $V", network="host"), Run(command="own", network="host"))
    assert copied == Copy(sources=("/a",), target="b", from_=Image.scratch())


def test_triggers_of_a_stage_are_carried_out_in_its_children_only() -> None:
    text = """
        FROM scratch AS a
        ARG n=1
        ONBUILD ENV x=$n
        ONBUILD COPY <<f /f
        $x
        f
        RUN a
        FROM a AS b
        RUN b
        FROM b
        RUN c
    """
    a, b, c = (image_of(text, target=str(stage)) for stage in range(3))
    assert config_of(a)["OnBuild"] == ["ENV x=$n", "COPY <<f /f\n$x\nf"]
    assert [type(layer) for layer in b.layers] == [Run, Env, Copy, Run]
    assert b.layers[1:3] == (Env(variables=(("x", "1"),)), Copy(inline=(("f", b"1\n"),), target="/f"))
    assert "OnBuild" not in config_of(b)
    assert c.layers[:-1] == b.layers


# Stages


def test_stages_are_images() -> None:
    text = """
        FROM golang:1 AS Build
        RUN make
        FROM scratch
        COPY --from=build /a /b
        COPY --from=0 /c /d
        COPY --from=nginx:1 /e /f
        RUN --mount=from=BUILD,target=/m x
    """
    image = image_of(text)
    build = Image.pull("golang:1").run("make", network="host")
    froms = [layer.from_ for layer in image.layers if isinstance(layer, Copy)]
    assert froms == [build, build, Image.pull("nginx:1")]
    (mount,) = runs(image)[0].mounts
    assert mount == BindMount(target="/m", from_=build)
    assert image_of(text, target="BUILD") == image_of(text, target="0") == build


def test_a_stage_that_is_not_needed_is_not_looked_into() -> None:
    def refuse(image: Image) -> dict[str, Any]:
        assert image == Image.scratch()
        return {}

    text = "FROM other AS a\nCOPY ${none:?no} b\nFROM scratch AS b\nRUN b\nFROM a\nRUN c"
    assert image_of(text, target="b", base_config=refuse).layers == (Run(command="b", network="host"),)


def test_from_takes_the_stage_before_it_or_an_image_of_that_name() -> None:
    image = image_of("FROM a AS a\nRUN 1\nFROM a AS a\nRUN 2\nFROM a\nRUN 3\nFROM c AS b\nFROM a AS c", target="2")
    assert [run.command for run in runs(image)] == ["1", "2", "3"]
    assert image.base == Image.pull("a").base


def test_an_entrypoint_unsets_the_command_that_came_with_the_base() -> None:
    text = 'FROM scratch AS a\nCMD ["a"]\nFROM a AS b\nENTRYPOINT ["b"]\nFROM a AS c\nCMD ["c"]\nENTRYPOINT ["c"]'
    assert config_of(image_of(text, target="b")).get("Cmd") is None
    assert config_of(image_of(text, target="c"))["Cmd"] == ["c"]


def test_a_context_may_be_another_folder_than_the_dockerfiles(tmp_path: Path) -> None:
    for name in ("docker", "project"):
        (tmp_path / name).mkdir()
    (tmp_path / "docker/Dockerfile").write_text("FROM a\nCOPY b /c\n")
    declared = Image.dockerfile(tmp_path / "docker", context=tmp_path / "project")
    (copy,) = resolve(declared).layers
    assert isinstance(copy, Copy)
    assert copy.context is not None
    assert copy.context.directory == str(tmp_path / "project")
    assert copy.context.ignore_files == (
        str(tmp_path / "docker/Dockerfile.dockerignore"),
        str(tmp_path / "project/.dockerignore"),
    )
    assert eval(repr(declared)) == declared  # repr is what makes it
    assert declared.key() == Image.dockerfile("docker").key(), "where files lie is no part of what is declared"


def test_contexts_stand_in_for_images_and_stages() -> None:
    text = "FROM debian:12 AS a\nRUN a\nFROM a AS b\nCOPY --from=tool x y\nRUN --mount=from=a,target=/t b"
    tool, base = Image.archive("/tool.tar"), Image.scratch().env(A="1").with_layer(OnBuild(trigger="LABEL t=$A"))
    image = image_of(text, contexts={"debian:12": base, "tool": tool})
    assert image.base == base.base
    assert image.layers[:3] == (*base.layers[:1], Label(labels=(("t", "1"),)), Run(command="a", network="host"))
    assert Copy(sources=("/x",), target="y", from_=tool) in image.layers
    replaced = image_of(text, contexts={"a": base, "tool": tool})
    assert runs(replaced)[-1].mounts == (BindMount(target="/t", from_=base),)
    assert image_of(text, target="a", contexts={"a": base}) == base


def test_a_long_row_of_stages_is_read() -> None:
    text = "FROM scratch AS s0\n" + "".join(
        f"FROM s{index} AS s{index + 1}\nCOPY --from=s{index} a b\nCOPY --from=s{index} c d\n" for index in range(300)
    )
    image = image_of(text)
    assert len(image.layers) == 600
    assert hash(image) == hash(image_of(text))
    assert image.key() == image_of(text).key()


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
