"""What a command is given, and what is said where it cannot start. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO, TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import CommandError, CommandNotFoundError, SandboxError, SpecError
from pytest_sandbox_runtime.process import DEVNULL, PIPE, STDOUT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def argv_of(args: Sequence[str | os.PathLike[str]] | str) -> list[bytes]:
    """Return ``args`` as execve(2) takes them; a string is a line for the shell. Raises SpecError."""
    argv = [os.fsencode(part) for part in (["/bin/sh", "-c", args] if isinstance(args, str) else args)]
    if not argv or any(b"\0" in part for part in argv):
        raise SpecError(f"{args!r} is no command", hint="a list with the program first, or a line for the shell")
    return argv


def input_of(data: bytes | str | IO[Any] | None) -> tuple[bytes | None, int | IO[Any] | None]:
    """Return the bytes to feed a command and what its standard input is, for what run was given as ``input``."""
    if data is None:
        return None, None
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data), PIPE
    if isinstance(data, str):
        return data.encode("utf-8", "surrogateescape"), PIPE
    return None, data


def decoded(output: bytes, *, text: bool) -> str | bytes:
    """Return ``output`` as it was, or as text that loses nothing."""
    return output.decode("utf-8", "surrogateescape") if text else output


def shown(args: Sequence[str | os.PathLike[str]] | str) -> list[str] | str:
    """Return ``args`` as they are shown: text."""
    return args if isinstance(args, str) else [os.fsdecode(part) for part in args]


def open_streams(
    stdin: int | IO[Any] | None, stdout: int | IO[Any], stderr: int | IO[Any], undo: ExitStack
) -> tuple[tuple[IO[bytes] | None, ...], tuple[int, ...]]:
    """Return our ends of a command's standard streams, as files or None, and its own, as descriptors.

    Both are closed by ``undo``.
    """
    ours: list[IO[bytes] | None] = []
    theirs: list[int] = []
    for number, wanted in enumerate((stdin, stdout, stderr)):
        stream = None
        if wanted == PIPE:
            read, write = os.pipe2(os.O_CLOEXEC)
            inner, outer = (read, write) if number == 0 else (write, read)
            stream = os.fdopen(outer, "wb" if number == 0 else "rb", 0)
            undo.callback(stream.close)
        elif wanted is None or wanted == DEVNULL:
            inner = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        elif wanted == STDOUT:
            inner = os.dup(theirs[1])
        else:
            inner = os.dup(wanted if isinstance(wanted, int) else wanted.fileno())
        undo.callback(os.close, inner)
        ours.append(stream)
        theirs.append(inner)
    return tuple(ours), tuple(theirs)


def check_file(fd: int) -> None:
    """Raise SpecError where ``fd`` is none of a file on disk, which takes what is written without waiting."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise SpecError("what is printed on a terminal goes to a file", hint="stdout=open(path, 'ab'), or use pty()")


def start_error(args: object, argv: list[bytes], workdir: str, code: object, subject: object) -> SandboxError:
    """Return the error of a command that init could not start, for the errno and the subject that it told."""
    program, said = os.fsdecode(argv[0]), str(subject)
    if said.startswith("workdir:"):
        return CommandError(f"cannot run {args!r} in {workdir}: {os.strerror(int(str(code)))}")
    if code == errno.ENOENT:
        return CommandNotFoundError(
            f"there is no program {program!r} in the sandbox", hint=f"PATH is {PATH}" if "/" not in program else ""
        )
    if code == errno.ENOEXEC:
        return CommandError(
            f"{said or program} is there, but what would run it is not",
            hint="its #! line or its loader names a missing file, or it is for another machine",
        )
    return CommandError(f"cannot run {program!r}: {os.strerror(int(str(code)))}")
