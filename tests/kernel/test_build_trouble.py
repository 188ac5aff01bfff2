"""What a build can run into: disks that are full or read-only, other builders, kills. The store stays whole."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime import Engine, EngineSettings, Image, SandboxSpec
from pytest_sandbox_runtime.errors import DockerfileError, SandboxError
from pytest_sandbox_runtime.images.images import Images
from pytest_sandbox_runtime.images.pruning import prune
from pytest_sandbox_runtime.images.store import Store
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Aside, Bench

    Faults = Callable[[str], list[str]]
    Declare = Callable[[object], Image]

pytestmark = pytest.mark.needs("overlayfs", "static-busybox")


@pytest.fixture
def declare(base: Image, tmp_path: Path) -> Declare:
    """Declares images with layers of each kind, none of which is in another one's."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("copied")

    def image(number: object) -> Image:
        return (
            base.run(f"mkdir -p /data; echo {number} > /data/one")
            .copy("file", "/data/file", context=context)
            .file("/data/written", "text")
            .env(A="1")
            .run("rm /data/one; echo two > /data/two")
        )

    return image


def built(store: str, image: Image) -> str:
    with Engine.open(EngineSettings(store=store)) as engine:
        return engine.images.build(image).digest


# Full and read-only disks


def in_own_mounts() -> None:
    unshare(CloneFlag.NEWNS)
    mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)


@pytest.mark.needs("root")
def test_a_full_disk_leaves_the_store_whole(
    aside: type[Aside], faults: Faults, declare: Declare, base: Image, tmp_path: Path
) -> None:
    place = tmp_path / "small"
    place.mkdir()

    def work() -> tuple[list[str], str]:
        in_own_mounts()
        mount("tmpfs", str(place), "tmpfs", options="size=8m")
        store, said = str(place / "store"), []
        built(store, base)
        # A step may find it full wherever it writes.
        for left in range(0, 45, 5):
            fill(place / "filler", left << 10)
            with pytest.raises(SandboxError, match="No space left on device") as caught:
                built(store, declare(left))
            said.append(str(caught.value))
            (place / "filler").unlink()
            assert faults(store) == []
        return said, built(store, declare(0))

    said, digest = aside(work).result()
    assert digest == built(str(tmp_path / "large"), declare(0))
    assert all("hint: " in one for one in said), "\n".join(said)
    assert any("No space left on device" in one and "ended with exit status 1" in one for one in said)


def fill(path: Path, left: int) -> None:
    """Write to a file until only ``left`` bytes of its disk are free."""
    free = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_bsize - left)


def make_read_only(store: str) -> None:
    """Let this process write nothing there; root may in spite of modes."""
    if os.geteuid() == 0:
        in_own_mounts()
        mount(store, store, "", MountFlag.BIND)
        mount("", store, "", MountFlag.BIND | MountFlag.REMOUNT | MountFlag.RDONLY)
        return
    for directory, _, _ in os.walk(store):
        os.chmod(directory, 0o500)


def test_a_read_only_store_is_said_to_be_that(
    aside: type[Aside], faults: Faults, declare: Declare, tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    built(store, declare(0))

    def before() -> str:
        make_read_only(store)
        with pytest.raises(SandboxError) as caught:
            built(store, declare(0))
        return str(caught.value)

    def meanwhile() -> str:
        with Engine.open(EngineSettings(store=store)) as engine:
            make_read_only(store)
            with pytest.raises(SandboxError) as caught:
                engine.images.build(declare(1))
        return str(caught.value)

    for said in (aside(meanwhile).result(), aside(before).result()):
        assert store in said
        assert "Read-only file system" in said or "Permission denied" in said
        assert "PYTEST_SANDBOX_HOME" in said
    for directory, _, _ in os.walk(store):
        os.chmod(directory, 0o700)
    assert faults(store) == []


# Dockerfiles


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            "FROM base AS one\nCOPY --from=two /a /\nFROM base AS two\nCOPY --from=one /b /",
            "one needs two, which needs",
        ),
        ("FROM base AS one\nCOPY --from=one /a /", "one needs itself"),
        ("FROM base AS one\nRUN --mount=from=two,target=/x true\nFROM one AS two", "one needs two, which needs one"),
    ],
)
def test_a_cycle_of_stages_is_refused_before_anything_is_made(
    bench: Bench, base: Image, tmp_path: Path, stages: str, message: str
) -> None:
    (tmp_path / "Dockerfile").write_text(stages)
    with pytest.raises(
        DockerfileError, match=f"{tmp_path}/Dockerfile:2: (COPY|RUN): a cycle of stages: {message}"
    ) as caught:
        bench.digest(Image.dockerfile(tmp_path, contexts={"base": base}))
    assert "those above it" in caught.value.hint
    assert bench.said == []


# Kills


def killed_at(store: str, image: Image, moment: int) -> int:
    """Build until just before the given change of a file in the store, and die there; else return how many there are."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event in CHANGES and any(isinstance(arg, str) and arg.startswith(store) for arg in args[:2]):
            writes = event != "open" or args[2] & (os.O_WRONLY | os.O_RDWR)
            count += bool(writes)
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    built(store, image)
    return count


CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.setxattr", "os.chmod", "os.utime"}


def test_a_build_that_was_killed_at_any_moment_is_finished_by_the_next(
    aside: type[Aside], faults: Faults, declare: Declare, base: Image, tmp_path: Path
) -> None:
    template, image = tmp_path / "template", declare(0)
    built(str(template), base)
    shutil.copytree(template, tmp_path / "calm", symlinks=True)
    expected = built(str(tmp_path / "calm"), image)
    shutil.copytree(template, tmp_path / "counted", symlinks=True)
    moments = aside(lambda: killed_at(str(tmp_path / "counted"), image, 0)).result()
    for moment in range(1, moments + 1, moments // 8):
        store = str(tmp_path / f"store-{moment}")
        shutil.copytree(template, store, symlinks=True)
        assert aside(lambda: killed_at(store, image, moment)).result() is None  # noqa: B023  called here
        assert faults(store) == []
        assert built(store, image) == expected
        with Store(store) as opened:
            prune(opened)
        assert [path for path in Path(store).glob("*/.partial-*") if path.parent.name != "builds"] == []


def with_log(bench: Bench, base: Image) -> Path:
    """Return where the store has the cache /log."""
    bench.digest(base.run("true", cache=["/log"]))
    (log,) = Path(bench.engine.store.path, "caches").iterdir()
    return log


def test_a_builder_that_is_killed_while_another_waits_is_taken_over(
    open_bench: Callable[..., Bench], aside: type[Aside], faults: Faults, base: Image
) -> None:
    bench, calm = open_bench("store"), open_bench("calm")
    store, log = bench.engine.store.path, with_log(bench, base)
    step = "echo > /log/begun; while ! test -e /log/go; do sleep 0.02; done; echo done > /end"
    image = base.run(step, cache=["/log"])
    os.mkfifo(log / "begun")
    heard, say = os.pipe()

    def build() -> str:
        report = partial(print, file=open(say, "w", closefd=False), flush=True)  # noqa: SIM115
        with Engine.open(EngineSettings(store=store, report=report)) as engine:
            return engine.images.build(image).digest

    with open(heard, encoding="utf-8") as lines:
        maker = aside(build)
        assert lines.readline().startswith("step 1/1 run(")
        with (log / "begun").open() as begun:
            heir = aside(build)
            assert lines.readline().endswith("; waiting\n")
            begun.readline()
            maker.kill()
            assert maker.result() is None
            assert lines.readline().startswith("step 1/1 run(")
            (log / "go").touch()
            digest = heir.result()
    os.close(say)
    (with_log(calm, base) / "go").touch()
    assert digest == calm.digest(image)
    assert faults(store) == []


# Who prunes meanwhile


def test_builders_and_pruners_are_in_nobodys_way(
    aside: type[Aside], faults: Faults, declare: Declare, tmp_path: Path
) -> None:
    store, rounds = str(tmp_path / "store"), 3
    done, pruned = tmp_path / "done", tmp_path / "pruned"
    pruned.touch()
    Store(store).close()

    def build(first: int) -> list[tuple[int, str, str]]:
        made: list[tuple[int, str, str]] = []
        while len(made) < rounds or pruned.stat().st_size < rounds:
            number = first + len(made)
            with Engine.open(EngineSettings(store=store)) as engine:
                digest = engine.images.build(declare(number % 4)).digest
                with engine.create(SandboxSpec(image=declare(number % 4))) as sandbox:
                    made.append((number % 4, digest, sandbox.read_text("/data/two")))
        return made

    def prune_until_done() -> int:
        count = 0
        while not done.exists():
            with Store(store) as opened:
                Images(opened).prune(older_than=0, max_bytes=0, tagged=True)
            count = pruned.write_bytes(bytes(count + 1))
        return count

    builders = [aside(partial(build, first)) for first in (0, 2)]
    pruner = aside(prune_until_done)
    made = [one for builder in builders for one in builder.result()]
    done.touch()
    assert pruner.result() >= rounds
    calm = {number: built(str(tmp_path / "calm"), declare(number)) for number in range(4)}
    assert len(made) >= 2 * rounds
    assert all((digest, text) == (calm[number], "two\n") for number, digest, text in made)
    assert faults(store) == []
