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
