"""Directories that sandboxes of a run share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime import (
    Engine,
    EngineSettings,
    Mount,
    SandboxSpec,
    SpecError,
    StartError,
    Tmpfs,
    Volume,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("overlay-on-host")


def on(volume: Volume, **words: Any) -> SandboxSpec:
    return SandboxSpec(mounts=(Mount(source=volume, target="/data", **words),))


def test_what_one_writes_the_others_read(tmp_path: Path) -> None:
    settings = EngineSettings(store=str(tmp_path))
    with Engine.open(settings) as first, Engine.join(first.listen(), settings) as second:
        with first.create(on(Volume("shared"))) as writer:
            writer.run("echo kept > /data/file", check=True)
        with second.create(on(Volume("shared"))) as reader, second.create(on(Volume("other"))) as stranger:
            assert reader.read_text("/data/file") == "kept\n"
            assert stranger.files.listdir("/data") == []


def test_it_begins_as_a_directory_which_stays_as_it_was(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed/file").write_text("first")
    with engine.create(on(Volume("seeded", source=str(tmp_path / "seed")))) as sandbox:
        sandbox.run("echo -n changed > /data/file", check=True)
    with engine.create(on(Volume("seeded", source=str(tmp_path / "seed")))) as again:
        assert again.read_text("/data/file") == "changed"
    assert (tmp_path / "seed/file").read_text() == "first"


def test_it_may_be_read_only_for_some(engine: Engine) -> None:
    with engine.create(on(Volume("partly"), read_only=True)) as sandbox:
        assert "Read-only file system" in sandbox.run("touch /data/file").stderr


def test_a_part_of_it_is_seen(engine: Engine) -> None:
    volume = Volume("parted")
    with engine.create(on(volume)) as every:
        every.run(
            "mkdir -p /data/a/b; ln -s a /data/near; ln -s /etc /data/far; echo kept > /data/a/b/file", check=True
        )
        for subpath in ("a/b", "a/./b/", "near/b"):
            with engine.create(on(volume, subpath=subpath)) as sandbox:
                assert sandbox.read_text("/data/file") == "kept\n"
        with engine.create(on(volume, subpath="a/b/file")) as sandbox:
            assert sandbox.read_text("/data") == "kept\n"
        with pytest.raises(SpecError, match="the volume parted has no a/c\n  hint: it has to be there before"):
            engine.create(on(volume, subpath="a/c"))
        with pytest.raises(SpecError, match="far leads out of the volume parted by a link"):
            engine.create(on(volume, subpath="far"))


def test_no_link_leads_out_of_a_directory_when_it_is_mounted(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "far").symlink_to("/etc")
    with engine.create(SandboxSpec(mounts=(Mount(source=str(tmp_path), target="/data", subpath="file"),))) as sandbox:
        assert sandbox.read_text("/data") == "kept"
    with pytest.raises(StartError, match=r"could not hold /.* /data far: Invalid cross-device link \(openat2 far\)"):
        engine.create(SandboxSpec(mounts=(Mount(source=str(tmp_path), target="/data", subpath="far"),)))


def test_it_is_gone_with_the_run(tmp_path: Path) -> None:
    with Engine.open(EngineSettings(store=str(tmp_path))) as engine:
        engine.create(on(Volume("shared"))).close()
        run = engine.run_directory
    assert not list(tmp_path.glob(f"runs/{run}/*"))


def test_memory_has_a_size(engine: Engine) -> None:
    with engine.create(SandboxSpec(mounts=(Tmpfs(target="/small", size="1M"),))) as sandbox:
        assert "No space left" in sandbox.run("head -c 2M /dev/zero > /small/file").stderr


def test_nonsense_is_refused() -> None:
    with pytest.raises(SpecError, match="'../up' is no name of a volume"):
        Volume("../up")
    for subpath in ("/etc", "a/../../b"):
        with pytest.raises(SpecError, match=f"subpath='{subpath}' is no path below /data"):
            Mount(source="/data", target="/data", subpath=subpath)
    with pytest.raises(SpecError, match="the volume data is to begin as /nowhere, which is no directory"):
        Volume("data", source="/nowhere")
