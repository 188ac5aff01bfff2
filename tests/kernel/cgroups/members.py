"""Processes in groups, and what they do there."""

from __future__ import annotations

import itertools
import os
import select
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.cgroups import Group

MIB = 1 << 20
NAMES = itertools.count()
NOBODY = 65534
ALLOCATE = "import sys; sys.stdout.write(str(len(bytearray(int(sys.argv[1])))))"
FORK = """
import os
release, hold = os.pipe()
made = 0
try:
    while made < 50:
        if os.fork() == 0:
            os.close(hold)
            os.read(release, 1)
            os._exit(0)
        made += 1
except BlockingIOError:
    print(made, "refused")
else:
    print(made, "made")
os.close(hold)
"""
# More than the 0.2 that is asked of the group, as the two are counted by different clocks.
BURN = "import time\nwhile time.process_time() < 0.25: pass"
ECHO = "import os\nwhile os.write(1, os.read(0, 1)): pass"


@contextmanager
def child(group: Group, code: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=group.join,  # noqa: PLW1509  there is one thread
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def outcome(group: Group, code: str, *arguments: object) -> tuple[int, str]:
    with child(group, code, *arguments) as process:
        printed, _ = process.communicate()
    return process.returncode, printed.decode().strip()


def echoes(process: subprocess.Popen[bytes], milliseconds: int | None) -> bool:
    """Send a byte, if none is under way, and tell whether it comes back in time."""
    assert process.stdin is not None
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    if not poll.poll(0):
        os.write(process.stdin.fileno(), b".")
    return bool(poll.poll(milliseconds)) and os.read(process.stdout.fileno(), 1) == b"."
