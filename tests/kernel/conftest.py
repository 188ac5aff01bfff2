"""A small base for images, and an engine to build them with."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import signal
import tarfile
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime import Engine, EngineSettings, Image, LiveNetwork, SandboxSpec
from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    "sort",
    "hostname",
    "chmod",
    "chown",
)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine for tests that need none of their own."""
    with Engine.open(EngineSettings(store=str(tmp_path_factory.mktemp("store")))) as engine:
        yield engine


@pytest.fixture
def network(engine: Engine) -> Iterator[LiveNetwork]:
    with engine.network() as network:
        yield network


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


class Aside:
    """A fork of this process that does something beside it, and then says what it returned."""

    def __init__(self, work: Callable[[], object]) -> None:
        told, tell = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 on, with threads: the child has none of them
            self.pid = os.fork()
        if self.pid == 0:
            os.close(told)
            try:
                said = pickle.dumps((work(), None))
            except BaseException:
                said = pickle.dumps((None, traceback.format_exc()))
            with open(tell, "wb") as stream:
                stream.write(said)
            os._exit(0)
        os.close(tell)
        self._told = open(told, "rb")  # noqa: SIM115  closed with its end

    def result(self) -> Any:
        """Return what the work returned, or None if it was killed; it must not have raised anything."""
        with self._told:
            said = self._told.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if status == -signal.SIGKILL:
            return None
        assert status == 0
        value, error = pickle.loads(said)
        assert error is None, error
        return value

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def aside() -> type[Aside]:
    return Aside


def faults_of(store: str) -> list[str]:
    """Return what is not whole in a store that nobody works on."""
    blobs = Path(store, "images/blobs/sha256").iterdir()
    found = [f"{blob} is damaged" for blob in blobs if hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name]
    with Store(store) as opened:
        for one in opened.images.index().manifests:
            try:
                opened.roots_of(opened.images.manifest_of(one)[1])
            except ImageError as error:
                found.append(str(error))
    return found


@pytest.fixture
def faults() -> Callable[[str], list[str]]:
    return faults_of
