"""Loading that meets a kill, a full disk, a store that cannot be written, or little memory."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import SandboxError
from pytest_sandbox_runtime.images.archive import load
from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.export import save
from pytest_sandbox_runtime.images.store import Store
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from tests.unit.archives.images import BASE, NAME, TOP, oci_files
from tests.unit.archives.stored import files_of, is_empty, write
from tests.unit.children import child_of, end_of
from tests.unit.tars import tar_of

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_kill_at_any_moment_leaves_the_store_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "image.tar", tar_of(oci_files(BASE, packing="gzip")))

    def work(place: str, step: int) -> None:
        count = iter(range(step))

        def hook(event: str, _arguments: object) -> None:
            if (event in ("open", "fcntl.flock") or event.startswith("os.")) and next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        load(Store(place), path)

    status, step = None, 0
    while status != 0:
        place = str(tmp_path / f"store{step}")
        status = end_of(child_of(lambda: work(place, step)))  # noqa: B023
        with Store(place) as store:
            for digest in store.images.digests():
                assert digest_of(Path(store.images.blob_path(digest)).read_bytes()) == digest
            for image in store.images.index().manifests:
                assert files_of(store, image) == {"bin/sh": b"#!", "etc/motd": b"base"}
            ((_, image),) = load(store, path)
            assert files_of(store, image) == {"bin/sh": b"#!", "etc/motd": b"base"}
            assert len(os.listdir(f"{place}/layers")) == 1
            assert not [name for name in os.listdir(f"{place}/images") if name.startswith(".")]
        step += 3
    assert step > 100


def in_namespace(action: Callable[[], object]) -> None:
    def inside() -> None:
        unshare(CloneFlag.NEWNS)
        mount("none", "/", flags=MountFlag.REC | MountFlag.PRIVATE)
        action()

    assert end_of(child_of(inside)) == 0


@pytest.mark.needs("root")
@pytest.mark.parametrize("kibibytes", [150, 400, 600])
def test_a_full_disk_is_an_error_with_its_mend_and_leaves_nothing(tmp_path: Path, kibibytes: int) -> None:
    path = write(tmp_path / "image.tar", tar_of(oci_files(BASE, TOP)))
    (tmp_path / "small").mkdir()

    def check() -> None:
        mount("tmpfs", str(tmp_path / "small"), "tmpfs", options=f"size={kibibytes}k")
        with Store(str(tmp_path / "small/store")) as store:
            with pytest.raises(SandboxError, match="No space left on device") as caught:
                load(store, path)
            assert caught.value.hint.startswith("free some space")
            assert is_empty(store)

    in_namespace(check)


@pytest.mark.needs("root")
def test_a_read_only_store_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "image.tar", tar_of(oci_files(BASE)))
    (tmp_path / "place").mkdir()

    def check() -> None:
        mount("tmpfs", str(tmp_path / "place"), "tmpfs")
        place = str(tmp_path / "place/store")
        with Store(place) as store:
            load(store, write(tmp_path / "other.tar", tar_of(oci_files(TOP))))
        mount("none", str(tmp_path / "place"), flags=MountFlag.REMOUNT | MountFlag.RDONLY)
        with pytest.raises(SandboxError, match="cannot be used: Read-only file system") as caught:
            load(Store(place), path)
        assert "PYTEST_SANDBOX_HOME" in caught.value.hint
        assert [one.name for one in Store(place).images.index().manifests] == [NAME]

    in_namespace(check)


def test_memory_does_not_grow_with_the_layer(tmp_path: Path) -> None:
    with open(tmp_path / "layer.tar", "wb") as file:
        header = tarfile.TarInfo("bin/large")
        header.size = 300 << 20
        file.write(header.tobuf())
        file.truncate(512 + header.size + 1024)
    subprocess.run(["gzip", "-1", "-k", tmp_path / "layer.tar"], check=True)

    def check(name: str) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with Store(str(tmp_path / "store")) as store:
            ((_, image),) = load(store, str(tmp_path / name))
            save(store.images, [(None, image)], str(tmp_path / "saved.tar"), format="docker")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10

    for name in ("layer.tar", "layer.tar.gz"):
        assert end_of(child_of(lambda name=name: check(name))) == 0  # type: ignore[misc]
