"""PYTEST_DONT_REWRITE. What services name of the rest of the file: networks, volumes, configs and secrets."""

from __future__ import annotations

from pytest_sandbox_runtime.compose.nodes import Node
from pytest_sandbox_runtime.suggestions import did_you_mean

# The network of who names none.
DEFAULT = "default"
_KINDS = ("networks", "volumes", "configs", "secrets")


class References:
    """The names that a merged file declares; what nobody needs is never looked at."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._needed: dict[str, dict[str, Node]] = {kind: {} for kind in _KINDS}

    def need(self, kind: str, name: str, node: Node) -> None:
        """Remember that ``node`` needs ``name``; raises ComposeError where the file does not declare it."""
        said = self._root.get(kind)
        declared = said.entries if said else {}
        if name in declared:
            self._needed[kind][name] = declared[name]
        elif (kind, name) == ("networks", DEFAULT):
            self._needed[kind][name] = Node({}, node.place)
        else:
            hint = did_you_mean(name, declared, f"declare it under {kind}, beside services")
            raise node.error(f"there is no {kind.removesuffix('s')} {name!r}", hint)

    def needed(self, kind: str) -> dict[str, Node]:
        """Return what is needed of ``kind``, in the order of the file."""
        said = self._root.get(kind)
        declared = [*(said.entries if said else {}), DEFAULT]
        return dict(sorted(self._needed[kind].items(), key=lambda item: declared.index(item[0])))
