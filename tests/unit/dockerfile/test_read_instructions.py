"""Instructions of Dockerfiles as layers."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from pytest_sandbox_runtime.images.dockerfile import read_text
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
