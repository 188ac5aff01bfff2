"""Steps and bases that package managers make, with programs of our own in the place of apt-get and mmdebstrap."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Engine, EngineSettings, Image, SandboxSpec
from pytest_sandbox_runtime.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator

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
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(EngineSettings(store=str(tmp_path / "store"))) as engine:
        yield engine


@pytest.fixture
def base(tmp_path: Path) -> Image:
    """A root file system of busybox."""
    place = tmp_path / "base"
    (place / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", place / "bin/busybox")
    for name in ("sh", "cat", "ls", "rm", "mkdir", "ln"):
        (place / "bin" / name).symlink_to("busybox")
    with tarfile.open(tmp_path / "base.tar", "w") as archive:
        archive.add(place, ".")
    return Image.archive(tmp_path / "base.tar")


def printed(engine: Engine, image: Image, command: str) -> str:
    with engine.create(SandboxSpec(image=image)) as sandbox:
        return str(sandbox.run(command, check=True).stdout)


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "programs/mmdebstrap"
    program.parent.mkdir()
    program.write_text(MMDEBSTRAP)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return program


def test_a_package_that_is_installed_starts_no_service(engine: Engine, base: Image) -> None:
    image = base.file("/usr/bin/apt-get", APT, chmod="0755").apt("nginx")
    assert printed(engine, image, "cat /said") == "101\n"
    assert printed(engine, image, "ls /usr") == "bin\n", "the policy is for the step only"


@pytest.mark.usefixtures("mmdebstrap")
def test_a_debian_starts_no_service_and_has_all_that_its_packages_bring(engine: Engine) -> None:
    roots = engine.images.inspect(engine.images.build(Image.debian("bookworm", ["curl"]))).layers
    (root,) = (Path(str(layer.unpacked)) for layer in roots)
    assert (root / "usr/sbin/policy-rc.d").read_text() == "#!/bin/sh\nexit 101\n"
    assert (root / "usr/sbin/policy-rc.d").stat().st_mode & 0o777 == 0o755
    words = (root / "words").read_text().splitlines()
    assert "--include=curl" in words
    assert not any("exclude" in word for word in words), "what is not unpacked now is missing in every later layer"


def test_what_mmdebstrap_says_is_told(engine: Engine, mmdebstrap: Path) -> None:
    mmdebstrap.write_text("#!/bin/sh\necho half a tar\necho E: no such suite >&2\nexit 25\n")
    with pytest.raises(BuildError, match="could not make nosuch:\nE: no such suite"):
        engine.images.build(Image.debian("nosuch"))


def test_what_a_failed_step_printed_is_shown_in_its_order_and_the_step_by_its_begin(
    engine: Engine, base: Image
) -> None:
    with pytest.raises(BuildError) as caught:
        engine.images.build(base.run(f"true {'x' * 500}; echo one; echo two >&2; echo three; exit 1"))
    first, *_, one, two, three = caught.value.message.splitlines()
    assert (one, two, three) == ("one", "two", "three")
    assert first.startswith("step 1/1 run('true xxx")
    assert first.partition(" failed: ")[0].endswith("xxx ...")
