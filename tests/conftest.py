"""What a test needs of its host: ``@pytest.mark.needs("root", "overlayfs")``, by the names of doctor's table.

To these come a few names of what only tests need. With SANDBOX_MUST_RUN a test that lacks something fails, unless
nothing could be done about it (a row without a mend: the other version of control groups, root for who is not), or
SANDBOX_MAY_LACK names it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.capabilities import Capability, names, probe
from pytest_sandbox_runtime.cgroups import v2
from pytest_sandbox_runtime.cgroups.convert import locate, parse_memberships, parse_mountinfo
from pytest_sandbox_runtime.cgroups.files import read
from pytest_sandbox_runtime.command import PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest_plugins = ["pytester"]

# Where a failure stops everybody, the examples of properties are the same each time: new ones are tried by people.
if os.environ.get("SANDBOX_MUST_RUN"):
    with contextlib.suppress(ImportError):
        from hypothesis import settings

        settings.load_profile("ci")

PT_INTERP = 3


def _program(name: str, package: str = "") -> Capability:
    # Where a sandbox, which has a PATH of its own, finds it too.
    path = shutil.which(name, path=PATH)
    return Capability(name, path is not None, path or "not installed", f"sudo apt install {package or name}")


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


def _docker(name: str) -> Capability:
    daemon, client = shutil.which("dockerd", path=PATH), _docker_client()
    is_there = daemon is not None and client is not None
    return Capability(name, is_there, daemon or "not installed", "sudo apt install docker.io")


def _buildkit(name: str) -> Capability:
    """A client that asks the daemon for BuildKit: those of today leave that to a plugin."""
    client = _docker_client()
    asked = {**os.environ, "DOCKER_BUILDKIT": "1"}
    is_there = (
        client is not None
        and not subprocess.run((client, "build", "--help"), env=asked, capture_output=True, check=False).returncode
    )
    return Capability(name, is_there, client or "not installed", "sudo apt install docker.io")


def _docker_client() -> str | None:
    return shutil.which("docker", path=f"/usr/bin:{PATH}")


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
    "podman": _program,
    "skopeo": _program,
    "umoci": _program,
    "docker-registry": _program,
    "htpasswd": lambda name: _program(name, "apache2-utils"),
    "openssl": _program,
    "tcpdump": _program,
    "mmdebstrap": _program,
    "docker": _docker,
    "docker-buildkit": _buildkit,
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


@pytest.fixture(scope="session")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A daemon of Docker that nobody else uses: the socket at which it listens."""
    where = tmp_path_factory.mktemp("docker")
    address, notice = where / "docker.sock", where / "notice"
    path = f"{PATH}:/usr/sbin:/sbin"
    argv = (
        # Apart, as other tests look at what the host has mounted.
        *("unshare", "--mount", str(shutil.which("dockerd", path=path))),
        *("--host", f"unix://{address}", "--data-root", str(where / "data")),
        *("--exec-root", str(where / "exec"), "--pidfile", str(where / "pid")),
        *("--bridge=none", "--iptables=false", "--ip6tables=false"),
    )
    environment = {**os.environ, "NOTIFY_SOCKET": str(notice), "PATH": path}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as said, (where / "log").open("wb") as log:
        # There the daemon says that it is ready: sd_notify(3).
        said.bind(str(notice))
        said.settimeout(60)
        with subprocess.Popen(argv, env=environment, stdout=log, stderr=log) as process:
            try:
                while b"READY=1" not in said.recv(4096):
                    pass
                yield address
            finally:
                process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="session")
def busybox_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of busybox and a shell, as a tar."""
    tar = tmp_path_factory.mktemp("busybox") / "base.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(str(shutil.which("busybox", path=PATH)), "bin/busybox")
        for name in ("sh", "cat", "echo", "ls", "touch"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return tar
