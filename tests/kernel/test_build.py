"""Images built from declarations, on the real kernel: what is in them, what is made anew, and what goes wrong."""

from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Image, SandboxSpec
from pytest_sandbox_runtime.errors import BuildError, ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Bench

pytestmark = pytest.mark.needs("overlayfs", "static-busybox")

# What depends on neither user, machine nor Python.
PINNED = "sha256:5929003703bc5e83477a5fad7cb6c7a8b749c5323c872d93ede8b1932414bc0b"


# What is in an image


def test_each_layer_sees_what_those_below_it_made(bench: Bench, base: Image, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/one.txt").write_text("one")
    image = (
        base.run("mkdir /made; echo first > /made/file")
        .copy("one.txt", "/made/", context=tmp_path / "context", chmod="0600", chown="app")
        .file("/made/deep/er/config", "x = 1\n", chown="app:staff")
        .run(["mv", "/made/file", "/made/moved"])
        .env(GREETING="hello")
        .workdir("/made")
        .run("echo $GREETING > said")
    )
    assert bench.printed(image, "cat moved one.txt deep/er/config said") == "first\nonex = 1\nhello\n"
    assert (
        bench.printed(image, "stat -c '%a %u:%g' one.txt deep/er/config deep")
        == "600 1000:1001\n644 1000:1001\n755 0:0\n"
    )
    assert bench.printed(image, "test -e /made/file || echo gone") == "gone\n"


def test_what_an_image_says_of_itself_is_how_commands_run_in_it(bench: Bench, base: Image) -> None:
    image = base.run("mkdir -p /home/app").env(COLOUR="blue").workdir("/home/app").user("app")
    assert bench.printed(image, "echo $COLOUR; echo $PWD; id -u; id -g") == "blue\n/home/app\n1000\n1001\n"


def test_the_sandboxs_own_files_are_in_no_layer(bench: Bench, base: Image) -> None:
    image = base.run("echo mine > /etc/hosts; echo mine > /etc/hostname; touch /dev/shm/x; echo > /dev/null")
    plain = base.run("true")
    assert layers_of(bench, image)[1:] == layers_of(bench, plain)[1:]


def layers_of(bench: Bench, image: Image) -> list[str]:
    return [layer.diff_id for layer in bench.engine.images.inspect(bench.engine.images.build(image)).layers]


def test_a_step_has_no_network_unless_it_says_so(bench: Bench, base: Image) -> None:
    image = base.run("ls /sys/class/net > /alone").run("ls /sys/class/net > /not-alone", network="host")
    assert bench.printed(image, "cat /alone") == "lo\n"
    assert bench.printed(image, "cat /not-alone").split() == sorted(os.listdir("/sys/class/net"))


def test_nothing_that_a_step_left_running_writes_any_more(bench: Bench, base: Image) -> None:
    with bench.engine.create(SandboxSpec(image=base)) as sandbox:
        with sandbox.popen("while true; do echo > /left; rm /left; done") as left:
            sandbox.kill_all()
            assert left.poll() == -signal.SIGKILL
        assert sandbox.run(["true"]).returncode == 0


# The cache


def test_a_built_image_is_built_once(open_bench: Callable[..., Bench], base: Image) -> None:
    image = base.run("echo > /one").env(A="1").run("echo > /two")
    first, second = open_bench(), open_bench()
    digest = first.digest(image)
    assert len(first.said) == 2
    assert second.digest(image) == digest
    assert second.said == []


def test_only_what_depends_on_a_change_is_made_again(
    open_bench: Callable[..., Bench], base: Image, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("before")
    image = base.run("echo > /below").copy("file", "/file", context=context).run("cat /file > /above")
    open_bench().digest(image)
    (context / "file").touch()
    again = open_bench()
    again.digest(image)
    assert again.said == [], "a time is no change"
    (context / "file").write_text("after")
    changed = open_bench(explain=True)
    assert changed.printed(image, "cat /above") == "after"
    assert [line.split(": ", 1)[1] for line in changed.said] == [
        "the files it reads have changed",
        "the layers below it have changed",
    ]


def test_a_rebuild_makes_all_anew_and_once_a_run(open_bench: Callable[..., Bench], base: Image) -> None:
    image = base.run("echo > /one").run("echo > /two")
    digest = open_bench().digest(image)
    again = open_bench(rebuild=True)
    assert again.digest(image) == digest
    assert again.digest(image) == digest
    assert len(again.said) == 2


def test_a_declaration_has_one_digest_wherever_it_is_built(open_bench: Callable[..., Bench], base: Image) -> None:
    image = base.run("mkdir /d; for i in 3 1 2; do echo $i > /d/$i; done; touch -d '2001-01-01 00:00:00' /d/1").env(
        A="1"
    )
    assert open_bench("one").digest(image) == open_bench("two").digest(image)


def test_what_needs_no_command_has_the_same_digest_for_every_user_and_python(bench: Bench) -> None:
    image = (
        Image.scratch()
        .file("/etc/app.conf", "x = 1\n", chmod="0640", chown="12:34")
        .workdir("/srv/app")
        .env(A="1", B="two")
        .label(maintainer="us")
        .cmd(["/bin/app"])
    )
    assert bench.digest(image) == PINNED


# Mounts of a step


def test_a_secret_is_seen_by_its_step_only(open_bench: Callable[..., Bench], base: Image, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret-before")
    image = base.run(
        "test -s /run/secrets/token && wc -c < /run/secrets/token > /size", secrets={"token": tmp_path / "token"}
    )
    bench = open_bench()
    assert bench.printed(image, "cat /size; ls -A /run") == "13\n"
    blobs = Path(bench.engine.store.path, "images/blobs/sha256")
    assert not any(b"s3cret" in blob.read_bytes() for blob in blobs.iterdir())
    (tmp_path / "token").write_text("s3cret-after!!")
    again = open_bench()
    again.digest(image)
    assert again.said == [], "a secret is no part of the key"


def test_a_cache_is_kept_between_builds_and_in_no_layer(open_bench: Callable[..., Bench], base: Image) -> None:
    bench = open_bench()
    for number in range(3):
        image = base.run(
            f"echo {number} >> /var/cache/tool/log; wc -l < /var/cache/tool/log > /lines", cache=["/var/cache/tool"]
        )
        assert bench.printed(image, "cat /lines; ls -d /var/cache 2> /dev/null || echo gone").split() == [
            str(number + 1),
            "gone",
        ]


# Dockerfiles

DOCKERFILE = """\
# syntax=docker/dockerfile:1
FROM base AS build
ENV GREETING="hello world"
WORKDIR /build
COPY src ./src
RUN --mount=type=cache,target=/cache echo one >> /cache/log
RUN <<EOF
echo "heredoc: $GREETING" > out.txt
find src -type f > files.txt
EOF
RUN --mount=type=bind,source=src,target=/mnt/src cat /mnt/src/a/x.txt > bound.txt
RUN --mount=type=tmpfs,target=/scratch touch /scratch/x

FROM base
COPY --from=build --chown=app /build/ /final/
COPY --chmod=0755 app.sh /bin/app
COPY <<-"END" /etc/motd
\tliteral $HOME
END
USER app
WORKDIR /final
ENTRYPOINT ["/bin/app"]
"""


def test_a_dockerfile_of_several_stages_is_built(bench: Bench, base: Image, tmp_path: Path) -> None:
    (tmp_path / "src/a").mkdir(parents=True)
    (tmp_path / "src/a/x.txt").write_text("x")
    (tmp_path / "src/skip.log").write_text("no")
    (tmp_path / ".dockerignore").write_text("**/*.log\n")
    (tmp_path / "app.sh").write_text("#!/bin/sh\n")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    image = Image.dockerfile(tmp_path, contexts={"base": base})
    said = bench.printed(image, "cat out.txt files.txt bound.txt /etc/motd; id -u; stat -c '%a' /bin/app; ls /")
    heredoc, files, bound, *rest = said.split("\n")
    assert (heredoc, files, bound) == ("heredoc: hello world", "src/a/x.txt", "xliteral $HOME")
    assert rest[:2] == ["1000", "755"]
    assert not {"cache", "mnt", "scratch"} & set(rest)
    assert bench.printed(image, "stat -c %u:%g /final/src/a/x.txt") == "1000:1001\n"


def test_stages_that_need_each_other_not_are_built_side_by_side(bench: Bench, base: Image) -> None:
    # Each waits for the other, by a cache that both see.
    wait = "touch /c/{}; for i in $(seq 200); do test -e /c/{} && exit 0; sleep 0.05; done; exit 1"
    shared = textwrap.dedent(
        f"""\
        FROM base AS one
        RUN --mount=type=cache,target=/c {wait.format("one", "two")}
        FROM base AS two
        RUN --mount=type=cache,target=/c {wait.format("two", "one")}
        FROM base
        COPY --from=one /etc/passwd /one
        COPY --from=two /etc/passwd /two
        """
    )
    from pytest_sandbox_runtime.images.dockerfile import read_text

    seq = base.run("ln -s busybox /bin/seq")
    assert bench.digest(read_text(shared, contexts={"base": seq}))


# What goes wrong


def test_a_failed_step_shows_its_command_its_last_lines_and_a_way_in(bench: Bench, base: Image) -> None:
    image = base.run("echo > /before").run("echo working; echo broken >&2; exit 3").run("echo > /never")
    with pytest.raises(BuildError) as caught:
        bench.digest(image)
    assert "step 2/3" in caught.value.message
    assert "exit status 3\nworking\nbroken" in caught.value.message
    found = caught.value.hint.rpartition(" ")[2]
    before = Image.pull(found)
    assert bench.printed(before, "ls /before") == "/before\n"


def test_a_failed_step_is_named_by_its_begin_and_shows_what_it_printed_in_order(bench: Bench, base: Image) -> None:
    with pytest.raises(BuildError) as caught:
        bench.digest(base.run(f"true {'x' * 500}; echo one; echo two >&2; echo three; exit 1"))
    first, *_, one, two, three = caught.value.message.splitlines()
    assert (one, two, three) == ("one", "two", "three")
    assert first.startswith("step 1/1 run('true xxx")
    assert first.partition(" failed: ")[0].endswith("xxx ...")


def test_what_replaces_a_link_is_what_later_files_meet(bench: Bench, base: Image, tmp_path: Path) -> None:
    for name in ("a/link/one", "b/link", "c/link/two"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    below = base.run("mkdir /real; ln -s real /link")
    image = below.copy(["a", "b"], "/", context=tmp_path)
    assert bench.printed(image, "ls /real; stat -c %F /link") == "one\nregular empty file\n"
    with pytest.raises(ImageError, match="/link is a file"):
        bench.digest(below.copy(["a", "b", "c"], "/", context=tmp_path))


def test_a_missing_file_is_named(bench: Bench, base: Image, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no missing.txt in the context"):
        bench.digest(base.copy("missing.txt", "/", context=tmp_path))


def test_an_ignored_file_is_said_to_be_that(bench: Bench, base: Image, tmp_path: Path) -> None:
    (tmp_path / "kept.log").write_text("")
    (tmp_path / ".dockerignore").write_text("*.log\n")
    with pytest.raises(ImageError, match="there is no kept.log") as caught:
        bench.digest(base.copy("kept.log", "/", context=tmp_path))
    assert ".dockerignore leaves it out" in caught.value.hint


def test_an_unknown_owner_is_named(bench: Bench, base: Image) -> None:
    with pytest.raises(ImageError, match="'stranger' names stranger"):
        bench.digest(base.file("/x", "", chown="stranger"))


def test_layers_on_a_copy_of_this_machine_are_refused(bench: Bench) -> None:
    with pytest.raises(ImageError, match="layers cannot be put on a copy of this machine"):
        bench.digest(Image.host().run("true"))


# Images of sandboxes


def test_a_committed_sandbox_is_an_image(bench: Bench, base: Image) -> None:
    with bench.engine.create(SandboxSpec(image=base.env(A="1"))) as sandbox:
        sandbox.run("echo kept > /kept; rm /etc/group; echo own > /etc/hosts", check=True)
        image = sandbox.commit()
        sandbox.run("echo later > /later", check=True)
    assert bench.printed(image, "cat /kept; ls / /etc; echo $A").split() == [
        "kept", "/:", "bin", "dev", "etc", "kept", "proc", "run", "sys", "tmp",
        "/etc:", "hostname", "hosts", "machine-id", "passwd", "resolv.conf", "1",
    ]  # fmt: skip


def test_a_fork_starts_as_the_first_is_now(bench: Bench, base: Image) -> None:
    with bench.engine.create(SandboxSpec(image=base, hostname="first")) as first:
        first.run("echo shared > /file", check=True)
        with first.fork() as second:
            assert second.run("cat /file; cat /etc/hostname").stdout == "shared\nfirst\n"
            second.run("echo second > /file", check=True)
            assert first.read_text("/file") == "shared\n"
            with second.fork() as third:
                assert third.read_text("/file") == "second\n"


def test_a_copy_of_this_machine_becomes_no_image(bench: Bench) -> None:
    with bench.engine.create(SandboxSpec()) as sandbox, pytest.raises(ImageError, match="cannot become an image"):
        sandbox.commit()
