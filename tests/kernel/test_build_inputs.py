"""What steps of a build read of the host, on the real kernel: secrets, requirements, copied files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Image
from pytest_sandbox_runtime.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Bench

pytestmark = pytest.mark.needs("overlayfs", "static-busybox")


# Secrets of Dockerfiles


def dockerfile(where: Path, base: Image, step: str, **secrets: Path) -> Image:
    (where / "Dockerfile").write_text(f"FROM base\n{step}\n")
    return Image.dockerfile(where, contexts={"base": base}, secrets=secrets)


def is_written(bench: Bench, text: bytes) -> bool:
    """Whether any file of the store, compressed as none of them is, has ``text``."""
    files = (path for path in Path(bench.engine.store.path).rglob("*") if path.is_file() and not path.is_symlink())
    return any(text in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ("id=token", "cat /run/secrets/token"),
        ("id=token,target=/root/.token,required", "cat /root/.token"),
        ("id=token,env=TOKEN", 'echo -n "$TOKEN"'),
    ],
)
def test_a_dockerfiles_secret_is_seen_by_its_step_only(
    open_bench: Callable[..., Bench], base: Image, tmp_path: Path, options: str, command: str
) -> None:
    token = tmp_path / "token.txt"
    token.write_text("s3cret-before")
    image = dockerfile(tmp_path, base, f"RUN --mount=type=secret,{options} {command} | wc -c > /size", token=token)
    bench = open_bench()
    assert bench.printed(image, "cat /size; ls -A /run /root 2>/dev/null; env").split()[0] == "13"
    assert "s3cret" not in bench.printed(image, "env; find /run /root -type f 2> /dev/null || true")
    assert not is_written(bench, b"s3cret-before")
    token.write_text("s3cret-after!!")
    again = open_bench()
    again.digest(image)
    assert again.said == [], "a secret is no part of the key"
    token.unlink()
    assert again.digest(image) == bench.digest(image), "a layer that is there needs no secret"


def test_a_needed_secret_that_nobody_gave_is_named(bench: Bench, base: Image, tmp_path: Path) -> None:
    step = "RUN --mount=type=secret,id=token,required=true cat /run/secrets/token"
    with pytest.raises(ImageError, match="needs the secret token") as caught:
        bench.digest(dockerfile(tmp_path, base, step))
    assert 'secrets={"token": path}' in caught.value.hint
    with pytest.raises(ImageError, match=f"the secret token: cannot read {tmp_path}/gone: No such file"):
        bench.digest(dockerfile(tmp_path, base, step, token=tmp_path / "gone"))


def test_a_secret_that_need_not_be_there_is_left_out(bench: Bench, base: Image, tmp_path: Path) -> None:
    step = "RUN --mount=type=secret,id=token ls -A /run > /seen"
    assert bench.printed(dockerfile(tmp_path, base, step), "cat /seen") == ""


# Requirements


@pytest.fixture
def with_pip(base: Image) -> Image:
    """An image whose python3 shows what pip would be called with."""
    script = "#!/bin/sh\nfind /tmp/requirements -type f > /seen; cd /tmp/requirements; cat * >> /seen\n"
    return base.file("/bin/python3", script, chmod=0o755)


def test_of_a_requirements_folder_only_what_is_named_counts(
    open_bench: Callable[..., Bench], with_pip: Image, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("-c pins.txt\none\n")
    (tmp_path / "pins.txt").write_text("one==1\n")
    (tmp_path / "other").write_text("before")
    image = with_pip.pip(requirements=tmp_path / "requirements.txt")
    bench = open_bench()
    seen = bench.printed(image, "cat /seen; test -e /tmp/requirements || echo gone").split("\n")
    assert sorted(seen[:2]) == ["/tmp/requirements/pins.txt", "/tmp/requirements/requirements.txt"]
    assert seen[2:] == ["one==1", "-c pins.txt", "one", "gone", ""]
    (tmp_path / "other").write_text("after")
    (tmp_path / "more").write_text("new")
    again = open_bench()
    again.digest(image)
    assert again.said == [], "a file beside it is no part of the key"
    (tmp_path / "pins.txt").write_text("one==2\n")
    changed = open_bench()
    assert "one==2" in changed.printed(image, "cat /seen")


def test_a_requirements_file_that_is_not_there_is_named(bench: Bench, with_pip: Image, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r base.txt")
    with pytest.raises(ImageError, match=f"there is no base.txt in the context {tmp_path}"):
        bench.digest(with_pip.pip(requirements=tmp_path / "requirements.txt"))


# Several sources


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    for name in ("one.txt", "two.txt", "left/a", "right/b"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    return place


@pytest.mark.parametrize("sources", [["one.txt", "two.txt"], "*.txt", ["one.txt", "left"]])
def test_several_files_cannot_become_one(bench: Bench, base: Image, context: Path, sources: str | list[str]) -> None:
    with pytest.raises(ImageError, match=r"one.txt.* cannot all become /x, which is no directory") as caught:
        bench.digest(base.copy(sources, "/x", context=context))
    assert "end the target with a slash, /x/" in caught.value.hint
    with pytest.raises(ImageError, match="cannot all become /etc/passwd"):
        bench.digest(base.copy(sources, "/etc/passwd", context=context))


@pytest.mark.parametrize("step", ["COPY one.txt two.txt x", "COPY *.txt x", "ADD *.txt x", "COPY <<a <<b x\na\nb"])
def test_nor_can_they_by_a_dockerfile(bench: Bench, base: Image, context: Path, step: str) -> None:
    with pytest.raises(ImageError, match="cannot all become x"):
        bench.digest(dockerfile(context, base, step))


@pytest.mark.parametrize(
    ("step", "there"),
    [
        ("COPY one.txt two.txt x/", "one.txt two.txt"),
        ("COPY *.txt /x/", "one.txt two.txt"),
        ("WORKDIR /x\nCOPY one.txt two.txt .", "one.txt two.txt"),
        ("COPY two.txt /x/\nCOPY one.txt left /x", "a one.txt two.txt"),
        ("COPY left right /x", "a b"),
        ("COPY <<a <<b x/\na\nb", "a b"),
    ],
)
def test_several_go_into_a_directory(bench: Bench, base: Image, context: Path, step: str, there: str) -> None:
    assert bench.printed(dockerfile(context, base, step), "ls /x").split() == there.split()


def test_a_pattern_of_one_match_becomes_the_target(bench: Bench, base: Image, context: Path) -> None:
    assert bench.printed(base.copy("one.*", "/x", context=context), "cat /x") == "one.txt"


def test_a_mount_is_of_one_thing(bench: Bench, base: Image, context: Path) -> None:
    with pytest.raises(ImageError, match=r"the mount of \*.txt could be any of several"):
        bench.digest(dockerfile(context, base, "RUN --mount=type=bind,source=*.txt,target=/x true"))


def test_what_is_no_directory_cannot_be_copied_into(bench: Bench, base: Image, context: Path) -> None:
    with pytest.raises(ImageError, match="/etc/passwd is a file") as caught:
        bench.digest(base.copy("one.txt", "/etc/passwd/", context=context))
    assert "remove the file" in caught.value.hint
