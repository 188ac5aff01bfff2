"""PYTEST_DONT_REWRITE. One file's values over another's: the specification's rules for files and for ``extends``.

Mappings are merged by key, lists are appended, all else is replaced. What must be unique in a list (a port, a mount's
target) is made so when it is read, where the later one counts.
"""

from __future__ import annotations

from dataclasses import replace

from pytest_sandbox_runtime.compose.nodes import Node
from pytest_sandbox_runtime.compose.short_forms import PAIRS

Path = tuple[str, ...]

_REPLACED: tuple[Path, ...] = (
    ("services", "*", "command"),
    ("services", "*", "entrypoint"),
    ("services", "*", "healthcheck", "test"),
    ("services", "*", "ulimits", "*"),
    ("services", "*", "logging"),
)
_SUBNETS: Path = ("networks", "*", "ipam", "config")


def merge(base: Node, over: Node, path: Path = ()) -> Node:
    """Return ``over`` on top of ``base``; raises ComposeError where one is a list and the other is none.

    ``!reset`` and ``!override`` stay in what is returned, for a file that may lie below it; see ``settled``.
    """
    if over.action:
        return over
    if base.action == "reset":
        return replace(over, action="override")
    if _matches(path, _REPLACED):
        return replace(over, action=base.action)
    if over.value is None:
        return base
    return replace(_merged(base, over, path), action=base.action)


def settled(node: Node) -> Node:
    """Return ``node`` without what ``!reset`` takes away, once nothing can lie below it any more."""
    if isinstance(node.value, dict):
        entries = node.value.items()
        return Node({name: settled(entry) for name, entry in entries if entry.action != "reset"}, node.place)
    if isinstance(node.value, tuple):
        return Node(tuple(settled(item) for item in node.value if item.action != "reset"), node.place)
    return Node(node.value, node.place)


def _merged(base: Node, over: Node, path: Path) -> Node:
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        return over.having(_mappings(base.value, over.value, path))
    if isinstance(base.value, tuple) and isinstance(over.value, tuple):
        return over.having(_subnets(base, over) if _matches(path, (_SUBNETS,)) else (*base.value, *over.value))
    if isinstance(base.value, (dict, tuple)) or isinstance(over.value, (dict, tuple)):
        if base.value is None:
            return over
        raise over.error(
            f"cannot be merged with what stands at {base.place}", "a list goes with a list, a mapping with a mapping"
        )
    return over


def _mappings(base: dict[str, Node], over: dict[str, Node], path: Path) -> dict[str, Node]:
    if _matches(path, PAIRS):  # where a name alone has a meaning, too
        return {**base, **over}
    merged = dict(base)
    for name, entry in over.items():
        merged[name] = merge(base[name], entry, (*path, name)) if name in base else entry
    return merged


def _subnets(base: Node, over: Node) -> tuple[Node, ...]:
    found = {_subnet(item): item for item in base.items}
    for item in over.items:
        subnet = _subnet(item)
        found[subnet] = merge(found[subnet], item) if subnet in found else item
    return tuple(found.values())


def _subnet(node: Node) -> object:
    subnet = node.get("subnet")
    return subnet.value if subnet else node.place


def _matches(path: Path, patterns: tuple[Path, ...]) -> bool:
    return any(
        len(path) == len(pattern) and all(want in {"*", name} for name, want in zip(path, pattern, strict=True))
        for pattern in patterns
    )
