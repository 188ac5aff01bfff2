"""What a test needs of its host: ``@pytest.mark.needs("root", "overlayfs")``, by the names of doctor's table.

To these come a few names of what only tests need. With SANDBOX_MUST_RUN a test that lacks something fails, unless
nothing could be done about it (a row without a mend: the other version of control groups, root for who is not), or
SANDBOX_MAY_LACK names it.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import struct
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.capabilities import Capability, names, probe
from pytest_sandbox_runtime.cgroups import v2
from pytest_sandbox_runtime.cgroups.convert import locate, parse_memberships, parse_mountinfo
from pytest_sandbox_runtime.cgroups.files import read
from pytest_sandbox_runtime.command import PATH

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["pytester"]

PT_INTERP = 3


def _program(name: str) -> Capability:
    # Where a sandbox, which has a PATH of its own, finds it too.
    path = shutil.which(name, path=PATH)
    return Capability(name, path is not None, path or "not installed", f"sudo apt install {name}")


def _static_busybox(name: str) -> Capability:
    path = shutil.which("busybox", path=PATH)
    is_there = path is not None and _is_static(path)
    return Capability(name, is_there, path or "not installed, or not static", "sudo apt install busybox-static")


def _is_static(path: str) -> bool:
    """Whether an ELF program names no interpreter: elf(5)."""
    with open(path, "rb") as file:
        (offset,), (size, count) = struct.unpack("<32xQ", file.read(40)), struct.unpack("<14xHH", file.read(18))
        file.seek(offset)
        return all(struct.unpack("<I", file.read(size)[:4]) != (PT_INTERP,) for _ in range(count))


def _machine(*machines: str) -> Callable[[str], Capability]:
    here = platform.machine()
    return lambda name: Capability(name, here in machines, f"this is {here}")


def _unified(name: str) -> Capability:
    """A group of version 2 that can be written to, whatever controllers it has."""
    mounts = [mounted for mounted in parse_mountinfo(read("/proc/self/mountinfo")) if mounted.version == v2.NUMBER]
    own = locate(mounts[0], parse_memberships(read("/proc/self/cgroup")).get("", "/")) if mounts else None
    is_there = own is not None and os.access(own, os.W_OK)
    return Capability(name, is_there, own or "no hierarchy of version 2 is mounted")


def _never(name: str) -> Capability:
    return Capability(name, available=False, reason="no host has it", mend="wait")


OF_TESTS: dict[str, Callable[[str], Capability]] = {
    "python3": _program,
    "redis-server": _program,
    "bwrap": _program,
    "umoci": _program,
    "static-busybox": _static_busybox,
    "x86_64": _machine("x86_64"),
    "syscall-numbers": _machine("x86_64", "aarch64"),
    "cgroup-tree": _unified,
    "perpetual-motion": _never,
}


@functools.cache
def row_of(name: str) -> Capability:
    return OF_TESTS[name](name) if name in OF_TESTS else probe(name)


def _needs(item: pytest.Item) -> list[str]:
    return sorted({name for mark in item.iter_markers("needs") for name in mark.args})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known = {*names(), *OF_TESTS}
    for item in items:
        if unknown := sorted(set(_needs(item)) - known):
            msg = f"{item.nodeid} needs {', '.join(unknown)}, but doctor's table has only: {', '.join(names())}"
            raise pytest.UsageError(msg)


def pytest_runtest_setup(item: pytest.Item) -> None:
    lacking = [row for row in map(row_of, _needs(item)) if not row.available]
    if lacking:
        give_up = pytest.fail if any(map(_must_be_there, lacking)) else pytest.skip
        give_up("this host lacks " + "; ".join(f"{row.name} ({row.reason})" for row in lacking))


def _must_be_there(row: Capability) -> bool:
    may_lack = os.environ.get("SANDBOX_MAY_LACK", "").split()
    return bool(os.environ.get("SANDBOX_MUST_RUN")) and bool(row.mend) and row.name not in may_lack
