"""The mount plan of a sandbox: pure values, in the order in which they are done, printable with steps.describe.

Read it as one reads a bubblewrap command line: the root first, then what is mounted on it, then the way into it.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.kernel.mounts import MountFlag
from pytest_sandbox_runtime.rootfs.layer import DEVICES
from pytest_sandbox_runtime.specs.sandbox import Mount, Tmpfs
from pytest_sandbox_runtime.supervisor.confinement import MASKED_PATHS, READONLY_PATHS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.rootfs.steps import Step

_NODEV = MountFlag.NOSUID | MountFlag.NODEV
# Where the supervisor has an empty directory that nobody can write to.
EMPTY = "/dev/pts/empty"
_SAFE = _NODEV | MountFlag.NOEXEC


@dataclass(frozen=True)
class Overlay:
    """One copy-on-write file system: where it is seen in the sandbox, and its lower directories, top first."""

    prefix: str
    lowers: tuple[str, ...]
    index: int = 0

    @property
    def upper(self) -> str:
        """The directory that holds what changes, relative to the sandbox's."""
        return f"upper{self.index}"

    @property
    def work(self) -> str:
        """The directory that overlayfs keeps for itself, beside ``upper``."""
        return f"work{self.index}"


@dataclass(frozen=True)
class Tree:
    """A root file system before anybody has written to it; the first overlay is "/".

    ``is_immutable`` where nobody changes the lower directories, of which an overlay that is mounted remembers much.
    """

    overlays: tuple[Overlay, ...]
    is_immutable: bool = False


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a plan depends on besides the tree."""

    user_namespace: bool
    on_disk: bool = False
    host_network: bool = False
    has_hosts: bool = False
    read_only: bool = False
    shm_size: int | None = None
    nesting: bool = False
    mounts: tuple[Mount | Tmpfs, ...] = ()


def plan(tree: Tree, around: Surroundings) -> tuple[Step, ...]:
    """Return the steps that, behind those of ``stack``, make ``tree`` the root of a mount namespace."""
    return (
        *_proc(),
        *_sys(around),
        *_dev(around),
        # The supervisor writes it, in the sandbox's own directory: who is on its networks comes and goes.
        *([("bind", "hosts", "root/etc/hosts")] if around.has_hosts else ()),
        *(_writable() if around.read_only else ()),
        *(("hold", mount.source, mount.target, mount.subpath) for mount in around.mounts if isinstance(mount, Mount)),
        ("pivot", "root"),
        *(_place(mount) for mount in around.mounts),
        *_freeze(tree, around),
    )


def stack(tree: Tree, around: Surroundings) -> tuple[Step, ...]:
    """Return the steps that mount the overlays of ``tree``, in the directory that is to hold what changes."""
    return tuple(_overlays(tree, around))


def _overlays(tree: Tree, around: Surroundings) -> Iterator[Step]:
    for overlay in tree.overlays:
        lowers = ":".join(escape(lower) for lower in overlay.lowers)
        options = f"lowerdir={lowers},upperdir={overlay.upper},workdir={overlay.work}"
        if around.on_disk:
            # Nothing here outlives a crash, so nothing needs to be synced; apt and databases gain most.
            options += ",volatile"
        # Each name is to be found where it is, by changes() and whoever reads a layer.
        options += ",userxattr" if around.user_namespace else ",redirect_dir=off,metacopy=off"
        # A device file in it, of the image or made by its root, is no device.
        yield ("mount", "overlay", _in_root(overlay.prefix), "overlay", int(MountFlag.NODEV), options)


def _in_root(path: str) -> str:
    return "root" if path == "/" else "root" + path


def escape(path: str) -> str:
    """Return ``path`` as overlayfs wants it in its options, where colons, commas and backslashes have a meaning."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _proc() -> Iterator[Step]:
    yield ("proc", "root/proc", int(_SAFE))
    for path in READONLY_PATHS:
        if path.startswith("/proc/") and os.path.exists(path):
            yield ("bind-ro", f"root{path}", f"root{path}", int(_SAFE))


def _sys(around: Surroundings, target: str = "root/sys") -> Iterator[Step]:
    if around.user_namespace and around.host_network:
        # sysfs shows a network namespace, and may be mounted by its owner only.
        yield ("bind", "/sys", target)
        return
    yield ("mount", "sysfs", target, "sysfs", int(_SAFE | MountFlag.RDONLY), "")


def _dev(around: Surroundings) -> Iterator[Step]:
    # The directory itself, its links and what devices are mounted on are the thin layer's: layer.write_fixed_files.
    for name in DEVICES:
        yield ("bind", f"/dev/{name}", f"root/dev/{name}")
    # gid 5 is tty on every distribution, but has no meaning where one group only is mapped.
    gid = "" if around.user_namespace else ",gid=5"
    flags = int(MountFlag.NOSUID | MountFlag.NOEXEC)
    yield ("mount", "devpts", "root/dev/pts", "devpts", flags, f"newinstance,ptmxmode=0666,mode=0620{gid}")
    yield from _whole(around) if around.nesting else ()
    size = "" if around.shm_size is None else f",size={around.shm_size}"
    yield ("mount", "shm", "root/dev/shm", "tmpfs", int(_SAFE), f"mode=1777{size}")
    yield from _masks()


def _whole(around: Surroundings) -> Iterator[Step]:
    """Mount proc and sysfs once more, with nothing on them, where /dev/shm will cover them.

    mount_namespaces(7): who makes a user namespace may mount their own only while such ones are in the mount
    namespace, though they are out of reach, and no more writable than those. So nobody in a sandbox of root's gets a
    /proc/sys that is writable, which would be the machine's.
    """
    yield ("mount", "whole", "root/dev/shm", "tmpfs", int(_SAFE), "mode=0")
    for name in ("proc", "sys"):
        yield ("mkdir", f"root/dev/shm/{name}", 0o555)
    yield ("proc", "root/dev/shm/proc", int(_SAFE if around.user_namespace else _SAFE | MountFlag.RDONLY))
    yield from _sys(around, "root/dev/shm/sys")


def _place(mount: Mount | Tmpfs) -> Step:
    if isinstance(mount, Mount):
        return ("place", mount.target, mount.read_only)
    size = "" if mount.size is None else f",size={mount.size}"
    owner = "".join(f",{name}={value}" for name, value in (("uid", mount.uid), ("gid", mount.gid)) if value)
    flags = _NODEV | (MountFlag.RDONLY if mount.read_only else 0) | (0 if mount.executable else MountFlag.NOEXEC)
    return ("tmpfs", mount.target, flags, f"mode={mount.mode:o}{owner}{size}")


def _writable() -> Iterator[Step]:
    """What can be written to in a root file system that is read-only."""
    yield ("mount", "tmpfs", "root/tmp", "tmpfs", int(_NODEV), "mode=1777")
    yield ("mount", "tmpfs", "root/run", "tmpfs", int(_NODEV), "mode=755")
    yield ("mkdir", "root/run/lock", 0o777)


def _masks() -> Iterator[Step]:
    for path in MASKED_PATHS:
        if os.path.isdir(path):
            # One empty directory for all: another file system for each would cost more than the mount.
            yield ("bind-ro", EMPTY, f"root{path}", int(_SAFE))
        elif os.path.exists(path):
            yield ("bind", "root/dev/null", f"root{path}")


def _freeze(tree: Tree, around: Surroundings) -> Iterator[Step]:
    if around.read_only:
        for overlay in tree.overlays:
            yield ("mount", "", overlay.prefix, "", int(MountFlag.BIND | MountFlag.REMOUNT | MountFlag.RDONLY), "")
