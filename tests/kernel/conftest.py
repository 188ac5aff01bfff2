"""A small base for images, and an engine to build them with."""

from __future__ import annotations

import shutil
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime import Engine, EngineSettings, Image, SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOOLS = (
    "sh",
    "true",
    "cat",
    "echo",
    "ls",
    "id",
    "mkdir",
    "rm",
    "ln",
    "touch",
    "sleep",
    "stat",
    "test",
    "find",
    "wc",
    "mv",
    "env",
    "date",
    "kill",
)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A root file system of busybox, as a tar."""
    root = tmp_path_factory.mktemp("base")
    (root / "bin").mkdir()
    (root / "etc").mkdir()
    shutil.copy(shutil.which("busybox") or "", root / "bin/busybox")
    for name in TOOLS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nstaff:x:1001:\n")
    tar = tmp_path_factory.mktemp("tar") / "base.tar"
    with tarfile.open(tar, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.add(path, arcname=str(path.relative_to(root)), recursive=False, filter=as_root)
    return Image.archive(tar)


def as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o755 if member.isdir() or "busybox" in member.name else 0o644
    return member


class Bench:
    """An engine on a store, and what it said."""

    def __init__(self, store: Path, **settings: Any) -> None:
        self.said: list[str] = []
        how = EngineSettings(store=str(store), report=self.said.append, **settings)
        self.engine = Engine.open(how)

    def digest(self, image: Image) -> str:
        return self.engine.images.build(image).digest

    def printed(self, image: Image, command: str) -> str:
        with self.engine.create(SandboxSpec(image=image)) as sandbox:
            outcome = sandbox.run(command, check=True)
        return str(outcome.stdout)


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    opened: list[Bench] = []

    def open_one(name: str = "store", **settings: bool) -> Bench:
        opened.append(Bench(tmp_path / name, **settings))
        return opened[-1]

    yield open_one
    for bench in opened:
        bench.engine.close()


@pytest.fixture
def bench(open_bench: Callable[..., Bench]) -> Bench:
    return open_bench()
