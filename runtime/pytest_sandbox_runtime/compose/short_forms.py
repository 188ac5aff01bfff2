"""PYTEST_DONT_REWRITE. Short forms made long, where files are merged by what only the long form has names for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose.nodes import Node

# Lists of NAME=value that may be mappings.
PAIRS = (
    ("services", "*", "environment"),
    ("services", "*", "labels"),
    ("services", "*", "annotations"),
    ("services", "*", "sysctls"),
    ("services", "*", "build", "args"),
    ("services", "*", "build", "labels"),
    ("services", "*", "build", "additional_contexts"),
    ("services", "*", "deploy", "labels"),
    ("networks", "*", "labels"),
    ("volumes", "*", "labels"),
)


def lengthened(root: Node) -> Node:
    """Return a file, or a part of one, that the schema has nothing against, with its short forms made long."""
    for path, change in _CHANGES:
        root = _at(root, path, change)
    return root


def _at(node: Node, path: tuple[str, ...], change: Callable[[Node], Node]) -> Node:
    if not path:
        return change(node)
    names = list(node.entries) if path[0] == "*" else [path[0]]
    for name in names:
        if entry := node.get(name):
            node = node.with_entry(name, _at(entry, path[1:], change))
    return node


def _pairs(node: Node) -> Node:
    if not isinstance(node.value, tuple):
        return node
    entries = {}
    for item in node.value:
        name, equals, value = str(item.value).partition("=")
        entries[name] = item.having(value if equals else None)
    return node.having(entries)


def _build(node: Node) -> Node:
    return node.having({"context": node}) if isinstance(node.value, str) else node


def _extends(node: Node) -> Node:
    return node.having({"service": node}) if isinstance(node.value, str) else node


def _depends_on(node: Node) -> Node:
    if not isinstance(node.value, tuple):
        return node
    return node.having(
        {str(item.value): item.having({"condition": item.having("service_started")}) for item in node.value}
    )


def _networks(node: Node) -> Node:
    if not isinstance(node.value, tuple):
        return node
    return node.having({str(item.value): item.having(None) for item in node.value})


def _hosts(node: Node) -> Node:
    if not isinstance(node.value, dict):
        return node
    return node.having(
        tuple(
            address.having(f"{name}={address.value}")
            for name, entry in node.value.items()
            for address in (entry.items or (entry,))
        )
    )


def _list(node: Node) -> Node:
    return node.having((node,)) if isinstance(node.value, (str, dict)) else node


_CHANGES: tuple[tuple[tuple[str, ...], Callable[[Node], Node]], ...] = (
    (("services", "*", "build"), _build),
    *((path, _pairs) for path in PAIRS),
    (("services", "*", "extends"), _extends),
    (("services", "*", "depends_on"), _depends_on),
    (("services", "*", "networks"), _networks),
    (("services", "*", "extra_hosts"), _hosts),
    *((("services", "*", name), _list) for name in ("env_file", "label_file", "tmpfs")),
)
