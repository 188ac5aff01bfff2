"""Steps and bases that package managers make, with programs of our own in the place of apt-get and mmdebstrap."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Image
from pytest_sandbox_runtime.errors import BuildError

if TYPE_CHECKING:
    from tests.kernel.conftest import Bench

pytestmark = pytest.mark.needs("overlayfs", "static-busybox")

# A package whose installation starts its service: as invoke-rc.d(8) does, it asks whether it may.
APT = """#!/bin/sh
case "$*" in *install*) /usr/sbin/policy-rc.d nginx start; echo $? > /said;; esac
"""
MMDEBSTRAP = """#!/bin/sh
root=$(mktemp -d)
mkdir -p $root/usr/sbin
for word; do
    case $word in --customize-hook=*) sh -ec "${word#*=}" hook $root || exit;; esac
done
printf '%s\\n' "$@" > $root/words
tar --sort=name --owner=0 --group=0 --numeric-owner -C $root -c . && rm -r $root
"""


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "programs/mmdebstrap"
    program.parent.mkdir()
    program.write_text(MMDEBSTRAP)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return program


def test_a_package_that_is_installed_starts_no_service(bench: Bench, base: Image) -> None:
    debian = base.run("mkdir -p /usr/sbin").file("/usr/bin/apt-get", APT, chmod="0755")
    image = debian.apt("nginx")
    assert bench.printed(image, "cat /said") == "101\n"
    assert bench.printed(image, "ls /usr/sbin") == "", "the policy is for the step only"


@pytest.mark.usefixtures("mmdebstrap")
def test_a_debian_starts_no_service_and_has_all_that_its_packages_bring(bench: Bench) -> None:
    images = bench.engine.images
    roots = images.inspect(images.build(Image.debian("bookworm", ["curl"]))).layers
    (root,) = (Path(str(layer.unpacked)) for layer in roots)
    assert (root / "usr/sbin/policy-rc.d").read_text() == "#!/bin/sh\nexit 101\n"
    assert (root / "usr/sbin/policy-rc.d").stat().st_mode & 0o777 == 0o755
    words = (root / "words").read_text().splitlines()
    assert "--include=curl" in words
    assert not any("exclude" in word for word in words), "what is not unpacked now is missing in every later layer"


@pytest.mark.needs("root")
def test_what_mmdebstrap_mounts_is_not_mounted_on_the_host(bench: Bench, mmdebstrap: Path) -> None:
    mount = "mkdir $root/left && mount -t tmpfs left-behind $root/left && tar --one-file-system"
    mmdebstrap.write_text(MMDEBSTRAP.replace("tar", mount).replace(" && rm -r $root", ""))
    bench.digest(Image.debian("bookworm"))
    assert "left-behind" not in Path("/proc/self/mountinfo").read_text()


def test_what_mmdebstrap_says_is_told(bench: Bench, mmdebstrap: Path) -> None:
    mmdebstrap.write_text("#!/bin/sh\necho half a tar\necho E: no such suite >&2\nexit 25\n")
    with pytest.raises(BuildError, match="could not make nosuch:\nE: no such suite"):
        bench.digest(Image.debian("nosuch"))
