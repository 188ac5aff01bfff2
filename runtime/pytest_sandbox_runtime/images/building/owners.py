"""PYTEST_DONT_REWRITE. What chown= says, by the image's own passwd(5) and group(5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError

if TYPE_CHECKING:
    from pytest_sandbox_runtime.lowers import MergedTree


def owner_of(said: str, tree: MergedTree) -> tuple[int, int]:
    """Return the uid and gid that "user:group", names or numbers, stands for in ``tree``; raises ImageError.

    Without a group it is the number of the user, as Docker has it.
    """
    user, colon, group = said.partition(":")
    uid = int(user) if _is_id(user) else _look_up(tree, "/etc/passwd", user or "root", said)
    if not colon:
        return uid, uid if _is_id(user) else _look_up(tree, "/etc/passwd", user, said, field=3)
    return uid, int(group) if _is_id(group) else _look_up(tree, "/etc/group", group or "root", said)


def _is_id(text: str) -> bool:
    # The last one stands for none: chown(2).
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 0xFFFFFFFF


def _look_up(tree: MergedTree, file: str, name: str, said: str, field: int = 2) -> int:
    for line in tree.read(file).splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > field and _is_id(fields[field]):
            return int(fields[field])
    if name == "root":
        return 0
    raise ImageError(
        f"{said!r} names {name}, whom the image's {file} does not have", hint="make it first, or use numbers"
    )
