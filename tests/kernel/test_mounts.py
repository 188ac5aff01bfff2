"""What of the host a spec lets into a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Engine, EngineSettings, Mount, SandboxClosedError, SandboxSpec

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


@pytest.mark.needs("overlay-on-host")
def test_a_user_may_write_where_everybody_may(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as sandbox:
        sandbox.run("echo mine > /var/tmp/pytest-sandbox-mine", check=True)
        assert "/var/tmp/pytest-sandbox-mine" in sandbox.changes().added


def test_a_closed_engine_says_so(engine: Engine) -> None:
    engine.close()
    with pytest.raises(SandboxClosedError, match="the engine was closed"):
        engine.create(SandboxSpec())
