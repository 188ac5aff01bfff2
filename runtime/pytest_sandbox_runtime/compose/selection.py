"""PYTEST_DONT_REWRITE. Which services there are: by profiles, by name, and by what they depend on, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.fields import boolean
from pytest_sandbox_runtime.compose.services import dependencies, profiles
from pytest_sandbox_runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pytest_sandbox_runtime.compose.nodes import Node
    from pytest_sandbox_runtime.compose.problems import Problems


class Selection:
    """The services of a merged file; ``active`` profiles become more where a service is asked for by its name."""

    def __init__(self, root: Node, active: Sequence[str], wanted: Collection[str], problems: Problems) -> None:
        self._root = root
        services = root.get("services")
        self._all: Mapping[str, Node] = services.entries if services else {}
        self._problems = problems
        for name in wanted:
            if name not in self._all:
                problems.add(root.place.error(f"there is no service {name!r}", did_you_mean(name, self._all)))
        asked = [name for name in wanted if name in self._all]
        added = [profile for name in asked for profile in profiles(self._all[name])]
        self.active = tuple(dict.fromkeys([*active, *added]))
        self._wanted = asked if wanted else [name for name in self._all if self._is_enabled(name)]
        self._done: dict[str, Node] = {}

    def ordered(self) -> dict[str, Node]:
        """Return the services to run, each after those that it depends on."""
        for name in self._wanted:
            self._add(name, ())
        return self._done

    def _is_enabled(self, name: str) -> bool:
        own = profiles(self._all[name])
        return not own or "*" in self.active or bool({*own} & {*self.active})

    def _add(self, name: str, chain: tuple[str, ...]) -> None:
        if name in self._done:
            return
        for other, node in dependencies(self._all[name]).items():
            if other in (*chain, name):
                circle = (*chain, name)
                names = " -> ".join([*circle[circle.index(other) :], other])
                self._problems.add(node.error(f"services wait for each other: {names}", "let one of them go first"))
            elif self._is_there(other, node):
                self._add(other, (*chain, name))
        self._done[name] = self._all[name]

    def _is_there(self, name: str, node: Node) -> bool:
        """Whether a dependency can be had; where it cannot and has to be, the problems are told."""
        if name in self._all and self._is_enabled(name):
            return True
        required = node.get("required")
        if required and not boolean(required):
            return False
        if name not in self._all:
            self._problems.add(node.error(f"there is no service {name!r}", did_you_mean(name, self._all)))
        else:
            own = " or ".join(profiles(self._all[name]))
            hint = f"enable the profile {own}, or say required: false"
            self._problems.add(node.error(f"{name!r} is in no active profile", hint))
        return False
