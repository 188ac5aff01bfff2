"""skopeo and umoci read the layout as it is, and what skopeo puts in is found."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.unit.layout.images import add_image, name

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_sandbox_runtime.images.layout import Layout
    from pytest_sandbox_runtime.images.leases import Lease


def tar_of(tmp_path: Path) -> bytes:
    (tmp_path / "tree/bin").mkdir(parents=True)
    (tmp_path / "tree/bin/hello").write_text("hello\n")
    return subprocess.run(["tar", "-C", tmp_path / "tree", "-c", "."], capture_output=True, check=True).stdout


@pytest.mark.needs("skopeo")
def test_skopeo_reads_the_layout_as_it_is(layout: Layout, lease: Lease, tmp_path: Path) -> None:
    image = add_image(layout, lease, tar_of(tmp_path))
    layout.tag(name("debian:12"), image, lease)
    place = f"oci:{layout.path}:docker.io/library/debian:12"
    said = subprocess.run(["skopeo", "inspect", place], capture_output=True, check=True).stdout
    assert json.loads(said)["Digest"] == image.digest
    subprocess.run(["skopeo", "copy", "--quiet", "--preserve-digests", place, f"oci:{tmp_path}/copy:x"], check=True)
    copied = json.loads((tmp_path / "copy/index.json").read_text())["manifests"][0]["digest"]
    assert copied == image.digest


@pytest.mark.needs("skopeo")
def test_what_skopeo_puts_in_is_found(layout: Layout, lease: Lease, tmp_path: Path) -> None:
    layout.tag(name("debian:12"), add_image(layout, lease, tar_of(tmp_path)), lease)
    place = f"oci:{layout.path}:docker.io/library/debian:12"
    subprocess.run(["skopeo", "copy", "--quiet", place, f"oci:{layout.path}:docker.io/library/other:1"], check=True)
    assert layout.resolve(name("other:1")) is not None
    assert layout.resolve(name("debian:12")) is not None


@pytest.mark.needs("umoci", "root")
def test_umoci_unpacks_the_layout_as_it_is(layout: Layout, lease: Lease, tmp_path: Path) -> None:
    layout.tag(name("debian:12"), add_image(layout, lease, tar_of(tmp_path)), lease)
    place = f"{layout.path}:docker.io/library/debian:12"
    subprocess.run(["umoci", "unpack", "--image", place, tmp_path / "bundle"], check=True, capture_output=True)
    assert (tmp_path / "bundle/rootfs/bin/hello").read_text() == "hello\n"
