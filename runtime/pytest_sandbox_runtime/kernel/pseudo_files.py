"""PYTEST_DONT_REWRITE. Files of proc(5) and cgroups(7), in which each write(2) is one request."""

from __future__ import annotations

import os

from pytest_sandbox_runtime.kernel.libc import SyscallError


def write(path: str, text: str, directory: int | None = None) -> None:
    """Write ``text`` at once; errors name the path, which may be relative to the descriptor of a ``directory``."""
    # Without O_TRUNC: a user who may write such a file need not be allowed more.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise SyscallError("write", error.errno or 0, path) from error
    finally:
        os.close(fd)
