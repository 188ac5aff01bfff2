"""PYTEST_DONT_REWRITE. Archives as they lie on disk, and whether what is in them is a root file system."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOP = ("bin", "sbin", "usr")


@contextlib.contextmanager
def opened(archive: str) -> Iterator[int]:
    """Open the file ``archive``; raises ImageError where it cannot be read or is no file."""
    try:
        # Without O_NONBLOCK a fifo would hold us for ever.
        fd = os.open(archive, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        msg = f"cannot read the archive {archive}: {error.strerror}"
        raise ImageError(msg, hint="check the path and that you may read it") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ImageError(f"{archive} is neither a file nor a directory", hint="name a tar or a directory")
        yield fd
    finally:
        os.close(fd)


def check_root(root: str, named: str) -> None:
    """Raise ImageError, about ``named``, unless ``root`` has what every root file system has."""
    try:
        names = os.listdir(root)
    except OSError as error:
        msg = f"cannot read the root file system {named}: {error.strerror}"
        raise ImageError(msg, hint="check that you may read it") from error
    if not set(_TOP).intersection(names):
        found = ", ".join(sorted(names)[:5]) or "nothing"
        msg = f"{named} holds no root file system: there is no {', '.join(_TOP)}, but {found}"
        raise ImageError(msg, hint=_hint_for(names))


def _hint_for(names: list[str]) -> str:
    if "manifest.json" in names or "oci-layout" in names:
        return "it is an image with layers: load it, with pytest-sandbox load, and name it"
    if len(names) == 1:
        return f"if the root file system is in its {names[0]}, pack that directory's content, or name that directory"
    return "pack the root directory itself, for instance: tar -C ROOT -cf root.tar ."
