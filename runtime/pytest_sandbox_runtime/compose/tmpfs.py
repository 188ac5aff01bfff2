"""PYTEST_DONT_REWRITE. ``tmpfs``, and modes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.fields import count, size, target, text

if TYPE_CHECKING:
    from pytest_sandbox_runtime.compose.nodes import Node

# Of nosuid and suid the latter changes nothing, as no program gains privileges.
_FLAGS = {"ro", "rw", "exec", "noexec", "suid", "nosuid", "nodev"}
_HINT = "there are size, mode, uid, gid, ro, rw, exec, noexec, suid, nosuid and nodev"


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsUse:
    """An empty directory in memory: ``size`` in bytes; None is as it comes.

    What is in it can be run only where it is ``executable``, as it is with Docker.
    """

    target: str
    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    read_only: bool = False
    executable: bool = False


def parse_tmpfs(node: Node) -> TmpfsUse:
    """Return one item of ``tmpfs``."""
    where, _, rest = text(node).partition(":")
    options = [option.strip().partition("=") for option in rest.split(",") if option.strip()]
    values = {name: node.having(value) for name, equals, value in options if equals}
    flags = [name for name, equals, _ in options if not equals]
    unknown = sorted({*values} - {"size", "mode", "uid", "gid"}) + sorted({*flags} - _FLAGS)
    if unknown:
        hint = "a device file in it is no device; leave it out" if unknown == ["dev"] else _HINT
        raise node.error(f"{text(node)!r} has the option {unknown[0]!r}", hint)
    return TmpfsUse(
        target=target(node.having(where)),
        size=size(values["size"]) or None if "size" in values else None,
        mode=parse_mode(values["mode"]) if "mode" in values else None,
        uid=count(values["uid"]) if "uid" in values else None,
        gid=count(values["gid"]) if "gid" in values else None,
        read_only=_last(flags, "ro", "rw") == "ro",
        executable=_last(flags, "exec", "noexec") == "exec",
    )


def _last(flags: list[str], *names: str) -> str:
    """Return which of ``names`` is said last; "" for none."""
    return next((flag for flag in reversed(flags) if flag in names), "")


def parse_mode(node: Node) -> int:
    """Return the bits of a mode: a number of YAML (0755 and 0o755 are octal there), or octal digits as a text."""
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        mode = node.value
    else:
        match = re.fullmatch(r"(?:0o)?([0-7]{1,5})", text(node))
        mode = int(match[1], 8) if match else -1
    if not 0 <= mode <= 0o7777:
        raise node.error(f"{node.value!r} is no mode", "for example 0755")
    return mode
