"""A thin lower layer of our own, made once for each run and image: fixed files, mount points, and what is hidden.

What lies in it hides what lies below: whiteouts and opaque directories as the kernel's overlayfs.rst has them.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.lowers import MergedTree

if TYPE_CHECKING:
    from collections.abc import Collection

MACHINE_ID = "7465737473206d616368696e65206964"
_MOUNT_POINTS = ("proc", "sys")
# Those that every program may count on; each is the host's own, mounted on a file in /dev.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# What every sandbox has of its own, so that it is no part of an image.
OWN_FILES = ("dev", "proc", "sys", "etc/hostname", "etc/hosts", "etc/machine-id", "etc/resolv.conf")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


class ThinLayer:
    """A layer being written to ``path``, over the directories ``below``, whose names it adds to or hides."""

    def __init__(self, path: str, *below: str, user_namespace: bool) -> None:
        self.path = path
        self._below = below
        self.user_namespace = user_namespace
        self._is_root = os.geteuid() == 0
        os.mkdir(path, 0o755)

    def hide(self, name: str) -> None:
        """Make ``name`` (relative) absent, if it is there at all."""
        if self._seen(name) is not None:
            # What lies in something hidden is hidden already.
            with suppress(FileExistsError, NotADirectoryError):
                self._make_parents(name)
                os.mknod(os.path.join(self.path, name), stat.S_IFCHR, 0)

    def shows(self, name: str) -> bool:
        """Whether the layers below have something at ``name``."""
        return self._seen(name) is not None

    def empty(self, name: str, mode: int = 0o755) -> None:
        """Make ``name`` an empty directory, whatever it was."""
        self._make_parents(name)
        path = os.path.join(self.path, name)
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)
        if self.user_namespace:
            # Before Linux 6.6 a tmpfs takes no user.* attributes: what is mounted there hides the image's own.
            with suppress(OSError):
                os.setxattr(path, "user.overlay.opaque", b"y")
        else:
            os.setxattr(path, "trusted.overlay.opaque", b"y")

    def write(self, name: str, content: str, mode: int = 0o644) -> None:
        """Make ``name`` a file with ``content``."""
        self._make_parents(name)
        path = os.path.join(self.path, name)
        with suppress(FileNotFoundError):
            os.unlink(path)  # a copy may be a link, or not writable
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(content)
        self._look_like_below(name, mode)

    def make_directory(self, name: str) -> None:
        """Make ``name`` a directory that shows what the layer below has there."""
        self._make_parents(f"{name}/")

    def copy(self, source: str, name: str) -> None:
        """Make ``name`` a copy of all that can be read of the directory ``source``: the caller's from then on."""
        target = os.path.join(self.path, name)
        os.mkdir(target)
        os.chmod(target, 0o755)
        with os.scandir(source) as entries:
            for entry in entries:
                with suppress(OSError):
                    self._copy_entry(entry, os.path.join(name, entry.name))

    def copy_files(self, source: str, name: str, left_out: Collection[str], largest: int) -> None:
        """Give the directory ``name`` the files and links of the directory ``source`` that can be read.

        But for those whose paths are ``left_out``, and those of more than ``largest`` bytes.
        """
        self.make_directory(name)
        with os.scandir(source) as entries:
            for entry in entries:
                with suppress(OSError):
                    is_file = entry.is_file(follow_symlinks=False) and entry.stat().st_size <= largest
                    if (entry.is_symlink() or is_file) and entry.path not in left_out:
                        self._copy_entry(entry, os.path.join(name, entry.name))

    def _copy_entry(self, entry: os.DirEntry[str], name: str) -> None:
        target = os.path.join(self.path, name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif entry.is_dir():
            self.copy(entry.path, name)
        elif entry.is_file():
            shutil.copy2(entry.path, target)

    def link(self, name: str, target: str) -> None:
        """Make ``name`` a symbolic link to ``target``."""
        os.symlink(target, os.path.join(self.path, name))

    def _make_parents(self, name: str) -> None:
        # A directory that is in two layers looks as it does in the upper one: it has to look as in the lower.
        parts = name.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            above = os.path.join(self.path, *parts[:count])
            if os.path.isdir(above):
                continue
            os.mkdir(above)
            os.chmod(above, 0o755)  # whatever the umask
            self._look_like_below("/".join(parts[:count]), None)

    def _look_like_below(self, name: str, mode: int | None) -> None:
        path = os.path.join(self.path, name)
        if mode is not None:
            os.chmod(path, mode)
        seen = self._seen(name)
        if seen is None:
            return
        if self._is_root:
            # Root of a user namespace cannot give files to whom that has no number for: EINVAL.
            with suppress(OSError):
                os.chown(path, seen.st_uid, seen.st_gid)
        if mode is None:
            os.chmod(path, stat.S_IMODE(seen.st_mode))

    def _seen(self, name: str) -> os.stat_result | None:
        if len(self._below) != 1:
            found = MergedTree(self._below).seen(name)
            return None if found is None else found.status
        try:
            return os.stat(os.path.join(self._below[0], name))
        except FileNotFoundError:
            with suppress(OSError):
                return os.lstat(os.path.join(self._below[0], name))
        except OSError:
            pass
        return None


def write_fixed_files(
    layer: ThinLayer,
    hostname: str,
    *,
    host_network: bool,
    nameservers: tuple[str, ...] = (),
    extra_hosts: str = "",
) -> None:
    """Write what every sandbox has alike: mount points, names and an identity that never change."""
    for name in _MOUNT_POINTS:
        layer.empty(name)
    _write_dev(layer)
    layer.write("etc/hostname", f"{hostname}\n")
    layer.write("etc/machine-id", f"{MACHINE_ID}\n", 0o444)
    local = f"127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost ip6-loopback {hostname}\n"
    layer.write("etc/hosts", (_of_host("/etc/hosts") if host_network else "") + local + extra_hosts)
    resolvers = "".join(f"nameserver {address}\n" for address in nameservers)
    layer.write("etc/resolv.conf", _of_host("/etc/resolv.conf") if host_network else resolvers)


def write_own_places(layer: ThinLayer) -> None:
    """Give a copy of the machine a /tmp and a /run of its own."""
    layer.empty("tmp", 0o1777)
    layer.empty("run")
    layer.empty("run/lock", 0o777)


def write_missing_places(layer: ThinLayer) -> None:
    """Give an image that lacks /tmp or /run one; what it has there is a part of it."""
    for name, mode in (("tmp", 0o1777), ("run", 0o755)):
        if not layer.shows(name):
            layer.empty(name, mode)


def _write_dev(layer: ThinLayer) -> None:
    layer.empty("dev")
    for name in DEVICES:
        layer.write(f"dev/{name}", "", 0o666)
    for name, target in _LINKS.items():
        layer.link(f"dev/{name}", target)
    layer.empty("dev/pts")
    layer.empty("dev/shm", 0o1777)


def _of_host(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""
