"""Trees of files, and what can be seen of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def files_below(root: str) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def picture(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Return all that can be seen of a tree: what two equal ones have in common."""
    seen: dict[bytes, tuple[object, ...]] = {}
    for folder, directories, files in os.walk(os.fsencode(root)):
        for path in [folder, *(os.path.join(folder, name) for name in directories + files)]:
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            owner = (status.st_uid, status.st_gid, status.st_rdev)
            name = os.path.relpath(path, os.fsencode(root))
            seen[name] = (status.st_mode, owner, status.st_mtime_ns, content)
    return seen
