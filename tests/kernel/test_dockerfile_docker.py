"""What Docker makes of a Dockerfile, by its classic builder and by BuildKit, is what is read of it here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.command import PATH
from pytest_sandbox_runtime.errors import DockerfileError
from pytest_sandbox_runtime.images.config import config_of, steps
from pytest_sandbox_runtime.images.dockerfile import read
from pytest_sandbox_runtime.specs import Image, Pull

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("docker", "root", "static-busybox")
CONFIG = (
    *("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell", "StopSignal", "User"),
    *("Volumes", "WorkingDir"),
)
BUILDERS = [
    pytest.param("0", id="classic"),
    pytest.param("1", id="buildkit", marks=pytest.mark.needs("docker-buildkit")),
]


class RefusedError(Exception):
    """Docker said no; why, as it says it."""


class Docker:
    """A client of a daemon of our own."""

    def __init__(self, address: Path) -> None:
        # Debian's client is of the daemon's own version, and has BuildKit built in.
        self._client = (str(shutil.which("docker", path=f"/usr/bin:{PATH}")), "--host", f"unix://{address}")

    def call(self, *words: str, builder: str = "0") -> str:
        environment = {**os.environ, "DOCKER_BUILDKIT": builder}
        done = subprocess.run((*self._client, *words), env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RefusedError(done.stderr)
        return done.stdout.strip()

    def build(self, context: Path, *options: str, builder: str) -> str:
        """Return the id of what the Dockerfile in ``context`` makes; raises RefusedError."""
        return self.call("build", "--quiet", "--network=none", *options, str(context), builder=builder)

    def config(self, image: str) -> dict[str, Any]:
        """Return what the image's configuration says, in the words of ``CONFIG``."""
        said = json.loads(self.call("inspect", "--format", "{{json .Config}}", image))
        found = {name: said[name] for name in CONFIG if said.get(name)}
        return {name: value for name, value in found.items() if (name, value) != ("WorkingDir", "/")}


@pytest.fixture(scope="module")
def docker(dockerd: Path) -> Docker:
    return Docker(dockerd)


def context(where: Path, text: str) -> Path:
    (where / "Dockerfile").write_text(text)
    (where / "file").write_text("x")
    return where


DOCKERFILES = {
    "nothing": "LABEL a=",
    "env": "ENV A=1 B=\"x y\" C=z\\ z\nENV D $A and 'more'\nENV E=$A${B}${N:-none}${A:+set}${N}\nENV A=2 F=$A",
    "env-quotes": """ENV A='$B' B="'x'" C=\\$A D="\\$A" E=a"b"'c' F=\\\\x G="a\\b" """,
    "path": "ENV PATH=/x:$PATH",
    "escape": "ENV A=x`y",
    "continuations": "ENV A=1 \\\n# between\n\n  B=2 \\  \n C=3\n#last\nLABEL a=\\\nb",
    "keywords": "env A=1\nWorkDir /x\ncmd x\nhealthcheck cmd y",
    "arg": "ARG A=1\nARG B=$A.\nARG N\nENV C=$A$B$N",
    "workdir": "WORKDIR a\nWORKDIR ../b/./c/\nENV D=d\nWORKDIR $D/${N:-n}",
    "user": "ENV U=7\nUSER root\nUSER $U:8",
    "cmd": 'CMD echo "$A" [x]',
    "cmd-list": 'CMD ["a", "$B", "c d"]',
    "cmd-almost-list": "CMD ['a']",
    "cmd-empty-list": "CMD x\nCMD []",
    "entrypoint": 'CMD ["x"]\nENTRYPOINT a b\nENTRYPOINT ["c"]',
    "entrypoint-none": 'ENTRYPOINT ["x"]\nENTRYPOINT []',
    "shell": 'CMD a\nSHELL ["/bin/bash", "-ec"]\nENTRYPOINT b\nHEALTHCHECK CMD c',
    "expose": "ENV P=90\nEXPOSE 80 81/UDP 82-84 $P/tcp\nEXPOSE 80/tcp",
    "label": 'ENV A=1\nLABEL a=$A "b c"="d e" f=\\"g\\"\nLABEL a=2 h=\'$A\'\nLABEL old style',
    "volume": 'ENV V=v\nVOLUME /a $V/b\nVOLUME ["/c d", "/$V"]',
    "signal": "STOPSIGNAL SIGINT\nSTOPSIGNAL 9",
    "health": "HEALTHCHECK --interval=1m30s --timeout=1500ms --start-period=1h --retries=3 CMD a | b",
    "health-list": 'HEALTHCHECK CMD ["a", "b c"]',
    "health-none": "HEALTHCHECK CMD a\nHEALTHCHECK NONE",
    "triggers": "ENV A=1\nONBUILD RUN echo   $A\nONBUILD COPY --from=x  a \\\n   b\nonbuild env B=2",
    "maintainer": "MAINTAINER Some One <one@example.org>",
    "stages": 'ENV A=1\nCMD ["x"]\nWORKDIR /w\nFROM one AS Two\nENV B=$A\nWORKDIR v\nFROM two\nENTRYPOINT ["e"]\nENV C=$B',
    "stages-cmd": 'CMD ["x"]\nONBUILD ENV T=1\nFROM one\nENTRYPOINT ["e"]\nCMD ["y"]\nENTRYPOINT ["f"]\nLABEL t=$T',
    "stages-apart": "ENV A=1\nFROM scratch\nARG A=2\nENV B=$A",
    "files": "COPY file /\nADD file /x/\nWORKDIR /x\nCOPY file y",
}


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_configuration_is_the_same(docker: Docker, tmp_path: Path, name: str, builder: str) -> None:
    where = context(tmp_path, f"FROM scratch AS one\n{DOCKERFILES[name]}\n")
    assert config_of(read(where)) == docker.config(docker.build(where, builder=builder))


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(
    "text",
    [
        "# escape=`\nFROM scratch\nENV A=C:\\x `\n  B=`$A\nLABEL a=b`\nc=d",
        "# syntax\n# escape = ` \nFROM scratch\nENV A=a\\\n  B=2",
        "\n# escape=`\nFROM scratch\nENV A=a\\\n  B=2",
        "ARG BASE=scratch\nARG V=${BASE}-1\nFROM ${BASE}\nENV A=$V\nARG V\nENV B=$V",
        "\ufeffFROM scratch\r\nENV A=1 \\\r\n  B=2\r\nCMD a\r\n",
        "  FROM scratch\n\tENV\tA=1\n",
    ],
)
def test_the_whole_file_is_read_the_same(docker: Docker, tmp_path: Path, text: str, builder: str) -> None:
    where = context(tmp_path, text)
    assert config_of(read(where)) == docker.config(docker.build(where, builder=builder))


@pytest.mark.needs("docker-buildkit")
@pytest.mark.parametrize("text", ["ENV A=1\nARG A=2\nENV B=$A", "ARG A=1\nFROM one\nENV B=$A"])
def test_where_the_two_differ_it_is_buildkit_that_is_right(docker: Docker, tmp_path: Path, text: str) -> None:
    where = context(tmp_path, f"FROM scratch AS one\n{text}\n")
    ours, classic = config_of(read(where)), docker.config(docker.build(where, builder="0"))
    assert ours != classic
    assert ours == docker.config(docker.build(where, builder="1"))


@pytest.mark.parametrize("builder", BUILDERS)
def test_arguments_and_target_say_the_same(docker: Docker, tmp_path: Path, builder: str) -> None:
    text = "ARG V=1\nARG W=$V.0\nFROM scratch AS one\nARG V\nARG W\nARG X=x\nENV A=$V-$W-$X\nFROM one\nENV A=no"
    where = context(tmp_path, text)
    ours = read(where, target="ONE", args={"V": "2", "X": "y"})
    theirs = docker.build(where, "--build-arg=V=2", "--build-arg=X=y", "--target=ONE", builder=builder)
    assert config_of(ours) == docker.config(theirs)


BASE = """FROM scratch
ENV A=1 PATH=/base
WORKDIR /base
USER 7
CMD ["base"]
SHELL ["/bin/sh", "-ec"]
LABEL a=1
EXPOSE 1
HEALTHCHECK CMD base
ONBUILD ARG T=$A
ONBUILD ENV B=$T
ONBUILD WORKDIR sub
"""


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(
    "text",
    ["LABEL b=2", "ENV C=$A$B$PATH", "CMD x", 'ENTRYPOINT ["x"]', "WORKDIR y\nUSER 8\nHEALTHCHECK NONE\nEXPOSE 2"],
)
def test_what_an_image_begins_with_counts_the_same(docker: Docker, tmp_path: Path, text: str, builder: str) -> None:
    (tmp_path / "base").mkdir()
    docker.build(context(tmp_path / "base", BASE), "--tag=base", builder="0")

    def base_config(image: Image) -> dict[str, Any]:
        assert isinstance(image.base, Pull)
        return docker.config(image.base.reference)

    where = context(tmp_path, f"FROM base\n{text}\n")
    ours = read(where, base_config=base_config)
    theirs = docker.build(where, builder=builder)
    assert config_of(ours, docker.config("base")) == docker.config(theirs)


REFUSED = [
    *("RUN x", "FROM", "FROM a b", "FROM scratch AS 1x", "FROM $N", "FRM scratch"),
    *("FROM scratch\nENV A", "FROM scratch\nENV", "FROM scratch\nENV A=1 B", "FROM scratch\nENV =1"),
    *("FROM scratch\nENV A=${B", "FROM scratch\nENV A='x", "FROM scratch\nENV A=${B!x}", "FROM scratch\nLABEL"),
    *("FROM scratch\nCOPY file", "FROM scratch\nCOPY", "FROM scratch\nCOPY --from=0 a b"),
    *("FROM scratch\nADD --nope=1 file /", "FROM scratch\nRUN --nope x", "FROM scratch\nCMD --nope"),
    *("FROM scratch\nCMD [1]", "FROM scratch\nSHELL x", "FROM scratch\nSHELL []", "FROM scratch\nWORKDIR"),
    *("FROM scratch\nEXPOSE x", "FROM scratch\nEXPOSE 9-8", "FROM scratch\nEXPOSE 70000", "FROM scratch\nVOLUME"),
    *("FROM scratch\nSTOPSIGNAL nope", "FROM scratch\nHEALTHCHECK x", "FROM scratch\nHEALTHCHECK CMD"),
    *("FROM scratch\nHEALTHCHECK --interval=1ns CMD x", "FROM scratch\nHEALTHCHECK --retries=x CMD x"),
    *("FROM scratch\nONBUILD FROM x", "FROM scratch\nONBUILD ONBUILD RUN x", "FROM scratch\nONBUILD"),
    *("# escape=x\nFROM scratch", "FROM scratch\nARG", "FROM scratch\nUSER", ""),
]


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("text", REFUSED)
def test_both_refuse(docker: Docker, tmp_path: Path, text: str, builder: str) -> None:
    where = context(tmp_path, text)
    with pytest.raises(RefusedError):
        docker.build(where, builder=builder)
    with pytest.raises(DockerfileError) as refused:
        read(where)
    assert str(where / "Dockerfile") in str(refused.value)


LOOK = """#!/bin/sh
cat /proc/1/cmdline >/seen/$1.argv
cat /proc/1/environ >/seen/$1.env
echo "$(pwd) $(id -u):$(id -g)" >/seen/$1.where
"""
STEPS = """ARG OUTER=outer
FROM scratch AS first
ADD tree /
RUN look 0; true
ARG OUTER
ARG INNER="in ner"
ENV A=1 B="x $INNER"
RUN look 1; true
WORKDIR /w/x
RUN ["/bin/sh", "-c", "look 2; true"]
SHELL ["/bin/sh", "-e", "-c"]
USER 7:8
RUN look 3; \\
    true "$A" '\\' # no end
ENV INNER=over
WORKDIR ../y
FROM first
ARG OUTER
ENV C=$OUTER
RUN look 4; true
USER root
RUN look 5; true
"""


@pytest.mark.parametrize("builder", BUILDERS)
def test_each_step_has_the_same_around_it(docker: Docker, tmp_path: Path, builder: str) -> None:
    where = context(tmp_path, STEPS)
    write_tree(where / "tree")
    image = docker.build(where, "--build-arg=OUTER=given", builder=builder)
    container = docker.call("create", "--network=none", image, "/bin/true")
    docker.call("cp", f"{container}:/seen", str(tmp_path / "seen"))
    ran = [step for step in steps(read(where, args={"OUTER": "given"}).layers) if step.run is not None]
    assert len(ran) == 6
    for number, step in enumerate(ran):
        seen = {kind: (tmp_path / f"seen/{number}.{kind}").read_text() for kind in ("argv", "env", "where")}
        assert tuple(seen["argv"].split("\0")[:-1]) == step.argv
        env = dict(pair.split("=", 1) for pair in seen["env"].split("\0")[:-1])
        assert {name: value for name, value in env.items() if name not in {"HOME", "HOSTNAME"}} == step.environment
        assert seen["where"].split() == [step.workdir, {"": "0:0", "root": "0:0"}.get(step.user, step.user)]


def write_tree(tree: Path) -> None:
    """Write what a step needs to look around: a static busybox and a script."""
    (tree / "bin").mkdir(parents=True)
    (tree / "etc").mkdir()
    (tree / "etc/group").write_text("root:x:0:\n")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    shutil.copy2(str(shutil.which("busybox", path=PATH)), tree / "bin/busybox")
    for name in ("sh", "cat", "id", "true"):
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "bin/look").write_text(LOOK)
    (tree / "bin/look").chmod(0o755)
    (tree / "seen").mkdir()
    (tree / "seen").chmod(0o777)
