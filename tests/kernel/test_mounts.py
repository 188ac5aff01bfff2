"""What of the host a spec lets into a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import (
    Engine,
    EngineSettings,
    Image,
    Mount,
    SandboxClosedError,
    SandboxSpec,
    SpecError,
    Volume,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(EngineSettings(store=str(tmp_path / "store"))) as engine:
        yield engine


@pytest.mark.needs("overlay-on-host")
def test_a_mount_is_read_only_unless_it_says_otherwise(engine: Engine, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "seen").write_text("hey")
    mounts = (
        Mount(source=str(shared), target="/mnt/read"),
        Mount(source=str(shared), target="/mnt/write", read_only=False),
        Mount(source=str(shared / "seen"), target="/mnt/file"),
    )
    with engine.create(SandboxSpec(mounts=mounts)) as sandbox:
        assert sandbox.run("cat /mnt/read/seen /mnt/file").stdout == "heyhey"
        assert "ead-only" in sandbox.run("echo no > /mnt/read/no").stderr
        sandbox.run("echo yes > /mnt/write/yes", check=True)
    assert sorted(path.name for path in shared.iterdir()) == ["seen", "yes"]


@pytest.mark.needs("overlayfs", "static-busybox")
def test_a_directory_can_be_copied_on_write(engine: Engine, tmp_path: Path, busybox_tar: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "kept").mkdir(parents=True)
    (shared / "seen").write_text("hey")
    mounts = (
        Mount(source=str(shared), target="/work/copy", copy=True),
        Mount(source=str(shared / "kept"), target="/work/copy/kept", read_only=False),
    )
    with engine.create(SandboxSpec(image=Image.archive(busybox_tar), mounts=mounts)) as sandbox:
        sandbox.run("cd /work/copy; echo mine >> seen; touch new kept/new", check=True)
        assert sandbox.read_text("/work/copy/seen") == "heymine\n"
        assert {"/work/copy/new", "/work/copy/seen"} <= {*sandbox.changes().added, *sandbox.changes().modified}
        with engine.create(sandbox.spec) as other:
            assert other.read_text("/work/copy/seen") == "hey"
        with engine.create(SandboxSpec(image=sandbox.spec.image)) as without:
            assert not without.files.exists("/work")
    assert sorted(path.name for path in shared.rglob("*")) == ["kept", "new", "seen"]
    assert (shared / "seen").read_text() == "hey"


def test_what_cannot_be_copied_on_write_is_said(engine: Engine, tmp_path: Path, busybox_tar: Path) -> None:
    for source, read_only in ((str(tmp_path), True), (Volume("shared"), None)):
        with pytest.raises(SpecError, match="copy=True is for a directory of the host"):
            Mount(source=source, target="/copy", copy=True, read_only=read_only)
    with pytest.raises(SpecError, match="in a copy of this machine all is copied on write already"):
        SandboxSpec(mounts=(Mount(source=str(tmp_path), target="/copy", copy=True),))
    with pytest.raises(SpecError, match="only a directory can be copied on write"):
        engine.create(
            SandboxSpec(
                image=Image.archive(busybox_tar), mounts=(Mount(source=str(busybox_tar), target="/copy", copy=True),)
            )
        )


@pytest.mark.needs("overlay-on-host")
def test_a_user_may_write_where_everybody_may(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as sandbox:
        sandbox.run("echo mine > /var/tmp/pytest-sandbox-mine", check=True)
        assert "/var/tmp/pytest-sandbox-mine" in sandbox.changes().added


def test_a_closed_engine_says_so(engine: Engine) -> None:
    engine.close()
    with pytest.raises(SandboxClosedError, match="the engine was closed"):
        engine.create(SandboxSpec())
