"""An image with a Python of its own: the files of the one that runs these tests, and of pytest, where it has them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PYTEST = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup", "tomli")
_LEFT_OUT = shutil.ignore_patterns(
    "site-packages", "dist-packages", "test", "idlelib", "lib2to3", "ensurepip", "config-*"
)


def make_root(root: Path) -> Path:
    """Make of ``root`` a root file system that has Python, pytest and nothing else: not even a shell."""
    python, library = os.path.realpath(sys.executable), sysconfig.get_path("stdlib")
    shutil.copytree(library, f"{root}{library}", ignore=_LEFT_OUT)
    for path in (python, *_libraries(python, f"{library}/lib-dynload")):
        os.makedirs(os.path.dirname(f"{root}{path}"), exist_ok=True)
        shutil.copy(path, f"{root}{path}")
    packages = root / "usr/lib/python3/dist-packages"
    packages.mkdir(parents=True)
    # Another than Debian's looks beside its library.
    (root / f".{library}" / "site-packages").symlink_to("/usr/lib/python3/dist-packages")
    for name in _PYTEST:
        found = importlib.util.find_spec(name)
        if found is not None and found.submodule_search_locations:
            shutil.copytree(found.submodule_search_locations[0], f"{packages}/{name}")
        elif found is not None and found.origin:
            shutil.copy2(found.origin, packages)
    for directory in ("etc", "usr/bin", "tmp"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/image").write_text("another system\n")
    if not (root / "usr/bin/python3").exists():
        (root / "usr/bin/python3").symlink_to(python)
    return root


def _libraries(python: str, library: str) -> Iterator[str]:
    """Yield the shared libraries, and the loader, of an interpreter and its modules."""
    modules = [os.path.join(library, name) for name in os.listdir(library)]
    said = subprocess.run(["ldd", python, *modules], check=False, capture_output=True, text=True).stdout
    yield from {path for path in re.findall(r"(/\S+) \(0x", said) if path not in modules}
