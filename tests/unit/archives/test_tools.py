"""Docker, podman and skopeo load what is saved, and what they save is loaded."""

from __future__ import annotations

import json
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.images.archive import load
from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.export import save
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.store import Store
from tests.unit.archives.images import BASE, NAME, TOP, oci_files
from tests.unit.archives.stored import files_of, write
from tests.unit.tars import tar_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_sandbox_runtime.images.manifest import Descriptor


@pytest.fixture(scope="module")
def docker(dockerd: Path) -> list[str]:
    """The command line of a Docker client."""
    return ["docker", "--host", f"unix://{dockerd}"]


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[list[str]]:
    """The command line of a podman with a storage of its own."""
    with tempfile.TemporaryDirectory(prefix="podman-") as run_root:  # which may not be longer than 50 characters
        # Apart, as other tests look at what the host has mounted.
        apart = ["unshare", "--mount"]
        yield [*apart, "podman", "--root", f"{tmp_path}/podman", "--runroot", run_root, "--storage-driver", "vfs"]


def run(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Descriptor:
    path = write(tmp_path / "image.tar", tar_of(oci_files(BASE, TOP, packing="gzip", config_json='{"Cmd":["sh"]}')))
    return load(store, path)[0][1]


@pytest.mark.needs("docker", "root")
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_docker_loads_what_is_saved(
    docker: list[str], store: Store, tmp_path: Path, image: Descriptor, compression: str
) -> None:
    target = str(tmp_path / "saved.tar")
    save(store.images, [(Reference.parse(NAME), image)], target, format="docker", compression=compression)
    assert "Loaded image: tiny:1" in run(*docker, "load", "-i", target)
    (said,) = json.loads(run(*docker, "inspect", "tiny:1"))
    assert said["Id"] == store.images.manifest_of(image)[1].config.digest
    assert said["RootFS"]["Layers"] == [digest_of(BASE), digest_of(TOP)]
    assert said["Config"]["Cmd"] == ["sh"]
    run(*docker, "rmi", "tiny:1")


@pytest.mark.needs("docker", "root")
def test_what_docker_saves_is_loaded(docker: list[str], store: Store, tmp_path: Path) -> None:
    run(*docker, "import", write(tmp_path / "base.tar", BASE), "other:2")
    run(*docker, "save", "-o", str(tmp_path / "saved.tar"), "other:2")
    ((reference, image),) = load(store, str(tmp_path / "saved.tar"))
    assert str(reference) == "docker.io/library/other:2"
    (said,) = json.loads(run(*docker, "inspect", "other:2"))
    assert store.images.manifest_of(image)[1].config.digest == said["Id"]
    assert files_of(store, image) == {"bin/sh": b"#!", "etc/motd": b"base"}


@pytest.mark.needs("podman", "root")
@pytest.mark.parametrize(("form", "compression"), [("oci", "none"), ("oci", "zstd"), ("docker", "none")])
def test_podman_loads_what_is_saved(
    podman: list[str], store: Store, tmp_path: Path, image: Descriptor, form: str, compression: str
) -> None:
    target = str(tmp_path / "saved.tar")
    save(store.images, [(Reference.parse(NAME), image)], target, format=form, compression=compression)
    assert f"Loaded image: {NAME}" in run(*podman, "load", "-i", target)
    (said,) = json.loads(run(*podman, "image", "inspect", NAME))
    assert f"sha256:{said['Id']}" == store.images.manifest_of(image)[1].config.digest
    assert said["RootFS"]["Layers"] == [digest_of(BASE), digest_of(TOP)]


@pytest.mark.needs("podman", "root")
@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "oci-dir"])
def test_what_podman_saves_is_loaded(podman: list[str], store: Store, tmp_path: Path, form: str) -> None:
    run(*podman, "import", write(tmp_path / "base.tar", BASE), NAME)
    run(*podman, "save", "--format", form, "-o", str(tmp_path / "saved"), NAME)
    ((reference, image),) = load(store, str(tmp_path / "saved"))
    assert str(reference) == NAME
    assert files_of(store, image) == {"bin/sh": b"#!", "etc/motd": b"base"}


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize(
    ("form", "transport"),
    [
        # Debian 12's skopeo unpacks it, owners and all.
        pytest.param("oci", "oci-archive", marks=pytest.mark.needs("root")),
        ("docker", "docker-archive"),
    ],
)
def test_skopeo_reads_what_is_saved(store: Store, tmp_path: Path, image: Descriptor, form: str, transport: str) -> None:
    save(store.images, [(Reference.parse(NAME), image)], str(tmp_path / "saved"), format=form)
    run("skopeo", "copy", f"{transport}:{tmp_path}/saved", f"oci-archive:{tmp_path}/copied:{NAME}")
    with Store(str(tmp_path / "other")) as other:
        ((reference, again),) = load(other, str(tmp_path / "copied"))
        assert str(reference) == NAME
        assert files_of(other, again) == files_of(store, image)
