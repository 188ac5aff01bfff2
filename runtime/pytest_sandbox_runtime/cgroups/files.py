"""PYTEST_DONT_REWRITE. Reading and waiting on the files of a cgroup; errors name the path."""

from __future__ import annotations

import errno
import os
import select
import time

from pytest_sandbox_runtime.cgroups.convert import flat_keyed, number
from pytest_sandbox_runtime.kernel.libc import SyscallError

# A group that was removed while its file was open answers ENODEV.
GONE = (errno.ENOENT, errno.ENODEV)


def read(path: str) -> str:
    """Return what the file says."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(fd, 65536), b"")).decode()
    except OSError as error:
        raise SyscallError("read", error.errno or 0, path) from error
    finally:
        os.close(fd)


def read_number(path: str) -> int | None:
    """Return the file's number; None for "max" and for what this kernel, or this group, does not have."""
    try:
        return number(read(path))
    except OSError as error:
        if error.errno not in GONE:
            raise
        return None


def read_keyed(path: str) -> dict[str, int]:
    """Return the file's keys and numbers; none for what this kernel, or this group, does not have."""
    try:
        return flat_keyed(read(path))
    except OSError as error:
        if error.errno not in GONE:
            raise
        return {}


def read_words(path: str) -> list[str]:
    """Return the words of the file: controllers or process ids."""
    return read(path).split()


def writable(path: str) -> bool:
    """Return whether this process, as it is now, may write to ``path``."""
    return os.access(path, os.W_OK, effective_ids=True)


def await_event(directory: str, key: str, value: int, deadline: float) -> bool:
    """Return whether v2's cgroup.events has come to say ``key value`` before ``deadline``."""
    fd = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        # Reading comes first: it arms the notice of the next change.
        while flat_keyed(os.pread(fd, 4096, 0).decode()).get(key) != value:
            if time.monotonic() >= deadline:
                return False
            poll.poll(_milliseconds(deadline))
    finally:
        os.close(fd)
    return True


def await_deaths(directory: str, deadline: float) -> None:
    """Wait until the processes of a group have died, or ``deadline`` has passed."""
    for pid in read_words(f"{directory}/cgroup.procs"):
        try:
            # A process outside this pid namespace reads 0, and has no descriptor here.
            pidfd = os.pidfd_open(int(pid)) if pid != "0" else -1
        except ProcessLookupError:
            continue
        if pidfd != -1:
            await_descriptor(pidfd, deadline)
            os.close(pidfd)


def await_descriptor(fd: int, deadline: float) -> None:
    """Wait until ``fd`` is readable, or ``deadline`` has passed."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(_milliseconds(deadline))


def breathe() -> None:
    """Let a millisecond pass, where the kernel has no event for what is awaited."""
    select.poll().poll(1)


def _milliseconds(deadline: float) -> int:
    return max(0, int((deadline - time.monotonic()) * 1000) + 1)
