"""PYTEST_DONT_REWRITE. What a service sees that is not of its image: binds, volumes, memory, configs and secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.fields import boolean, count, filled, path, size, target, text
from pytest_sandbox_runtime.compose.tmpfs import TmpfsUse, parse_mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose.nodes import Node, Place

_HINT = 'for example "./src:/app:ro", "data:/var/lib/data" or "/cache"'
# Labels of SELinux, which has no say here; Docker ignores them, too, where there is none.
_WITHOUT_EFFECT = {"z", "Z", "rprivate", "private", "cached", "delegated", "consistent"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BindUse:
    """A file or directory of the host; with ``create_host_path`` a directory is made where there is none."""

    source: str
    target: str
    read_only: bool = False
    create_host_path: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeUse:
    """A named volume, by its key among the project's, or without ``source`` one of the service's own.

    A new one starts with what the image has there, unless ``nocopy``. ``subpath`` is the part of it that is seen, which
    stands at ``place`` in the file and has to be there when the service starts.
    """

    source: str | None
    target: str
    read_only: bool = False
    nocopy: bool = False
    subpath: str | None = None
    place: Place | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileUse:
    """A config or a secret by its key among the project's, seen as the file ``target``; None is as it comes."""

    source: str
    target: str
    uid: int | None = None
    gid: int | None = None
    mode: int = 0o444


Use = BindUse | VolumeUse | TmpfsUse


def parse_mount(node: Node) -> Use:
    """Return one item of ``volumes``."""
    return _long(node) if isinstance(node.value, dict) else _short(node)


def parse_file(node: Node, kind: str) -> FileUse:
    """Return one item of ``configs`` or ``secrets``, as ``kind`` says."""
    source = node if isinstance(node.value, str) else node.get("source")
    if source is None:
        raise node.error("lacks source", f"the name of one of those under {kind}, beside services")
    name = filled(source)
    said, uid, gid, mode = (node.get(key) for key in ("target", "uid", "gid", "mode"))
    where = filled(said) if said else name
    folder = "/run/secrets/" if kind == "secrets" else "/"
    return FileUse(
        source=name,
        target=where if where.startswith("/") else folder + where,
        uid=count(uid) if uid else None,
        gid=count(gid) if gid else None,
        # Nobody writes to one.
        mode=parse_mode(mode) & ~0o222 if mode else 0o444,
    )


def _short(node: Node) -> BindUse | VolumeUse:
    said = text(node)
    parts = said.split(":")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise node.error(f"{said!r} is no volume", _HINT)
    if len(parts) == 1:
        return VolumeUse(source=None, target=target(node))
    options = set(parts[2].split(",")) if len(parts) == 3 else set()
    if unknown := sorted(options - {"ro", "rw", "nocopy"} - _WITHOUT_EFFECT):
        raise node.error(f"{said!r} has the option {unknown[0]!r}", "there are ro, rw and nocopy")
    where, read_only = target(node.having(parts[1])), "ro" in options
    if parts[0].startswith((".", "/", "~")):
        return BindUse(source=path(node.having(parts[0])), target=where, read_only=read_only)
    return VolumeUse(source=_name(node, parts[0]), target=where, read_only=read_only, nocopy="nocopy" in options)


def _name(node: Node, name: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]*", name):
        raise node.error(f"{name!r} is no name of a volume", "a path of the host begins with ., / or ~")
    return name


def _long(node: Node) -> Use:
    kind = text(node.entries["type"])
    where = node.get("target")
    if where is None:
        raise node.error("lacks target", "the path in the sandbox")
    convert = _KINDS.get(kind)
    if convert is None:
        raise node.entries["type"].error(f"{kind!r} is not supported", f"there are {', '.join(_KINDS)}")
    for other in {"bind", "volume", "tmpfs", "image"} - {kind}:
        if options := node.get(other):
            raise options.error(f"says nothing about a mount of type {kind}", "leave it out")
    read_only = node.get("read_only")
    return convert(node, target(where), read_only=boolean(read_only) if read_only else False)


def _bind(node: Node, where: str, *, read_only: bool) -> BindUse:
    source = node.get("source")
    if source is None:
        raise node.error("lacks source", "the path of the host")
    propagation, recursive = node.get("bind", "propagation"), node.get("bind", "recursive")
    if propagation and text(propagation) not in {"private", "rprivate"}:
        raise propagation.error(f"{text(propagation)!r} is not supported", "mounts of a sandbox stay in it")
    if recursive and text(recursive) != "enabled":
        raise recursive.error(f"{text(recursive)!r} is not supported", "what is mounted below comes along")
    create = node.get("bind", "create_host_path")
    return BindUse(
        source=path(source),
        target=where,
        read_only=read_only,
        create_host_path=boolean(create) if create else True,
    )


def _volume(node: Node, where: str, *, read_only: bool) -> VolumeUse:
    source, nocopy, subpath = node.get("source"), node.get("volume", "nocopy"), node.get("volume", "subpath")
    part = filled(subpath) if subpath else None
    if subpath and part and (part.startswith("/") or ".." in part.split("/")):
        raise subpath.error(f"{part!r} leads out of the volume")
    if subpath and source is None:
        raise subpath.error("is a part of a volume that begins empty", "name another service's volume under source")
    return VolumeUse(
        source=_name(source, filled(source)) if source else None,
        target=where,
        read_only=read_only,
        nocopy=boolean(nocopy) if nocopy else False,
        subpath=part,
        place=subpath.place if subpath else None,
    )


def _tmpfs(node: Node, where: str, *, read_only: bool) -> TmpfsUse:
    if source := node.get("source"):
        raise source.error("memory has no source", "leave it out")
    most, mode = node.get("tmpfs", "size"), node.get("tmpfs", "mode")
    return TmpfsUse(
        target=where,
        size=(size(most) or None) if most else None,
        mode=parse_mode(mode) if mode else None,
        read_only=read_only,
    )


_KINDS: dict[str, Callable[..., Use]] = {"bind": _bind, "volume": _volume, "tmpfs": _tmpfs}
