"""PYTEST_DONT_REWRITE. How a function of libc is bound, and what a call that said no becomes."""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)


class SyscallError(OSError):
    """A system call that said no: which one, on what."""

    def __init__(self, call: str, code: int, subject: str = "") -> None:
        super().__init__(code, os.strerror(code), subject or None)
        self.call = call

    def __str__(self) -> str:
        return f"{self.call}({self.filename or ''}): {errno.errorcode.get(self.errno or 0, '?')}, {self.strerror}"

    def __reduce__(self) -> tuple[type[SyscallError], tuple[str, int, str]]:
        # xdist ships errors between processes, and OSError's own state lacks the call.
        return type(self), (self.call, self.errno or 0, self.filename or "")


def bind(name: str, *argtypes: Any) -> Callable[..., int]:
    """Return libc's function ``name`` as a function object of our own."""
    # _LIBC.mount is shared by the whole process, and so are its argtypes; _LIBC["mount"] is ours alone.
    function = _LIBC[name]
    function.argtypes = argtypes
    function.restype = ctypes.c_int
    return function


def bind_syscall(number: int, *argtypes: Any) -> Callable[..., int]:
    """Return syscall(2) with its number filled in, for the calls that libc has no function for."""
    function = _LIBC["syscall"]
    function.argtypes = (ctypes.c_long, *argtypes)
    function.restype = ctypes.c_long
    return lambda *arguments: int(function(number, *arguments))


def check(result: int, call: str, subject: str = "") -> int:
    """Return ``result``, or raise what errno says when it is -1."""
    if result == -1:
        raise SyscallError(call, ctypes.get_errno(), subject)
    return result
