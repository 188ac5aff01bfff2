"""The root file system that every runtime is given: a directory, and a tar of it for docker import."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path


def make_base(where: Path, given: str | None) -> Path:
    """Return a root file system's directory: ``given`` (a directory or a tar), Debian's, or one of busybox."""
    if given is not None and os.path.isdir(given):
        return Path(given).resolve()
    root = where / "root"
    tar = given
    if tar is None and os.geteuid() == 0 and shutil.which("mmdebstrap"):
        tar = str(where / "debian.tar")
        made = subprocess.run(["mmdebstrap", "--variant=minbase", "stable", tar], check=False, capture_output=True)
        tar = tar if made.returncode == 0 else None
    if tar is None:
        return _busybox(root)
    root.mkdir()
    # Without root no device file can be made, and no runtime here reads those of the base.
    subprocess.run(["tar", "-C", str(root), "--exclude=./dev/*", "-xf", tar], check=True)
    return root


def _busybox(root: Path) -> Path:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("no base: give --root, or install mmdebstrap (as root) or busybox-static")
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for name in ("sh", "true", "sleep", "cat", "echo"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return root


def pack(root: Path, tar: Path) -> Path:
    """Make ``tar`` of ``root``."""
    with tarfile.open(tar, "w") as archive:
        archive.add(root, arcname=".", filter=lambda member: None if member.isdev() else member)
    return tar
