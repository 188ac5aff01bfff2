"""Variables, triggers and stages of Dockerfiles."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from pytest_sandbox_runtime.images.config import config_of
from pytest_sandbox_runtime.images.dockerfile import read_text, resolve
from pytest_sandbox_runtime.images.dockerfile.platform import native_platform
from pytest_sandbox_runtime.specs import (
    BindMount,
    CacheMount,
    Cmd,
    Copy,
    Download,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Image,
    Label,
    Layer,
    OnBuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)


def image_of(text: str, **words: Any) -> Image:
    return read_text(textwrap.dedent(text), **words)


def layers(text: str, **words: Any) -> tuple[Layer, ...]:
    return image_of("FROM scratch\n" + textwrap.dedent(text), **words).layers


def runs(image: Image) -> list[Run]:
    return [layer for layer in image.layers if isinstance(layer, Run)]


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
