"""PYTEST_DONT_REWRITE. Owners and extended attributes: which a layer has, and where they are when they cannot be set.

A user who has one user id cannot give files away. What a file or directory should have had is then in its attribute
user.containers.override_stat, as podman, buildah and fuse-overlayfs have it: "uid:gid:mode:type". Symbolic links and
fifos take no attributes: their owners are in one of their directory. A device is an empty file with the former.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from typing import NamedTuple

from pytest_sandbox_runtime.lowers import get_xattr

OVERRIDE = "user.containers.override_stat"
OWNERS = "user.pytest-sandbox.owners"
CAPABILITY = "security.capability"
# Where the capabilities of a file are that its owner was not allowed to set.
KEPT_CAPABILITY = "user.pytest-sandbox.capability"
_OURS = (OVERRIDE, "user.pytest-sandbox.", "user.overlay.")
_FORM = re.compile(rb"(\d{1,10}):(\d{1,10}):([0-7]{1,7})(?::(\w+)(?:-(\d{1,7})-(\d{1,7}))?)?")
_DEVICES = {b"block": stat.S_IFBLK, b"char": stat.S_IFCHR}
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir"}
# struct vfs_ns_cap_data of capabilities(7): the revision 3 is the revision 2 and the root of a user namespace.
_REVISION, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000
_OWNER = re.compile(rb"(\d{1,10}):(\d{1,10}) ([^\0]+)\0")

Attributes = tuple[tuple[str, bytes], ...]


class Identities(NamedTuple):
    """How user and group ids inside are ids outside: triples of an inside id, an outside id and a count.

    As in /proc/PID/uid_map; without any, ids are the same on both sides.
    """

    uids: tuple[tuple[int, int, int], ...] = ()
    gids: tuple[tuple[int, int, int], ...] = ()

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return what the outside ids are inside; ValueError for one that is not mapped."""
        return _inside(self.uids, uid, "user"), _inside(self.gids, gid, "group")


def _inside(triples: tuple[tuple[int, int, int], ...], number: int, kind: str) -> int:
    if not triples:
        return number
    for inside, outside, count in triples:
        if outside <= number < outside + count:
            return inside + number - outside
    raise ValueError(f"its {kind} {number} is none of those that are mapped")


class Override(NamedTuple):
    """What a file should have been; ``kind`` is S_IFBLK or S_IFCHR for a device, and else 0."""

    uid: int
    gid: int
    mode: int
    kind: int = 0
    device: int = 0


def is_kept(name: str) -> bool:
    """Whether an extended attribute belongs to a layer: not those of overlayfs, of this host, or of this store."""
    return name == CAPABILITY or (name.startswith("user.") and not name.startswith(_OURS))


def format_override(uid: int, gid: int, mode: int, device: int = 0) -> bytes:
    """Return the attribute for a file of this full ``mode``."""
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is None:
        word = "block" if stat.S_ISBLK(mode) else "char"
        kind = f"{word}-{os.major(device)}-{os.minor(device)}"
    return f"{uid}:{gid}:{stat.S_IMODE(mode):04o}:{kind}".encode()


def parse_override(said: bytes | None) -> Override | None:
    """Return what an attribute says; None where it is none or makes no sense."""
    found = _FORM.fullmatch(said or b"")
    if found is None:
        return None
    uid, gid, mode, kind, major, minor = found.groups()
    device = os.makedev(int(major), int(minor)) if major else 0
    return Override(int(uid), int(gid), stat.S_IMODE(int(mode, 8)), _DEVICES.get(kind, 0), device)


def format_owners(owners: dict[bytes, tuple[int, int]]) -> bytes:
    """Return the attribute of a directory for the owners of names in it."""
    return b"".join(b"%d:%d %b\0" % (*owners[name], name) for name in sorted(owners))


def owners_in(directory: int) -> dict[bytes, tuple[int, int]]:
    """Return the owners that names in ``directory`` should have had."""
    said = get_xattr(directory, OWNERS)
    return {name: (int(uid), int(gid)) for uid, gid, name in _OWNER.findall(said)} if said else {}


def attributes_of(file: int, identities: Identities) -> tuple[Attributes, Override | None]:
    """Return the extended attributes that an open file or directory has in a layer, by name, and its override."""
    names = os.listxattr(file)
    if not names:
        return (), None
    found = {name: os.getxattr(file, name) for name in names if is_kept(name)}
    if KEPT_CAPABILITY in names:
        found[CAPABILITY] = os.getxattr(file, KEPT_CAPABILITY)
    if CAPABILITY in found:
        found[CAPABILITY] = _anywhere(found[CAPABILITY], identities)
    override = parse_override(os.getxattr(file, OVERRIDE)) if OVERRIDE in names else None
    return tuple(sorted(found.items())), override


def _anywhere(capability: bytes, identities: Identities) -> bytes:
    # What was set in a user namespace has its root's id outside: inside, and in a layer, it is the plain form.
    if len(capability) != 24 or struct.unpack_from("<I", capability)[0] & _REVISION != _REVISION_3:
        return capability
    magic, *data, root = struct.unpack("<6I", capability)
    if _inside(identities.uids, root, "user") != 0:
        return capability
    return struct.pack("<5I", magic & ~_REVISION | _REVISION_2, *data)
