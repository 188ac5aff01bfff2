"""The root file system that every runtime is given: a directory, and a tar of it for docker import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

# Named, as the lists of the host's own apt may be out of date for parts that are not needed here.
_DEBIAN = ("bookworm", "deb http://deb.debian.org/debian bookworm main")


def make_base(where: Path, given: str | None) -> tuple[Path, Path]:
    """Return a root file system's directory and its tar: ``given`` (either), Debian's, or one of busybox."""
    root, tar = where / "root", where / "root.tar"
    if given is None and not _debian(tar):
        _busybox(root)
    elif given is not None and os.path.isdir(given):
        root = Path(given).resolve()
    else:
        tar = tar if given is None else Path(given).resolve()
        root.mkdir()
        # Without root no device file can be made, and no runtime here reads those of the base.
        subprocess.run(["tar", "-C", str(root), "--exclude=./dev/*", "-xf", str(tar)], check=True)
    return root, tar if tar.exists() else pack(root, tar)


def _debian(tar: Path) -> bool:
    if os.geteuid() or not shutil.which("mmdebstrap"):
        return False
    suite, line = _DEBIAN
    argv = ["mmdebstrap", "--variant=minbase", suite, str(tar), line]
    made = subprocess.run(argv, check=False, capture_output=True, text=True)
    if made.returncode:
        tar.unlink(missing_ok=True)
        print(f"no Debian base, so busybox: {made.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
    return made.returncode == 0


def _busybox(root: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("no base: give --root, or install mmdebstrap (as root) or busybox-static")
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for name in ("sh", "true", "sleep", "cat", "echo"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")


def pack(root: Path, tar: Path) -> Path:
    """Make ``tar`` of ``root``."""
    with tarfile.open(tar, "w") as archive:
        archive.add(root, arcname=".", filter=lambda member: None if member.isdev() else member)
    return tar
