"""PYTEST_DONT_REWRITE. Files as one tree: each read, checked and made whole, then merged in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.extending import Extension
from pytest_sandbox_runtime.compose.including import included
from pytest_sandbox_runtime.compose.interpolation import interpolate
from pytest_sandbox_runtime.compose.loader import read_nodes
from pytest_sandbox_runtime.compose.merging import merge, settled
from pytest_sandbox_runtime.compose.nodes import Node, Place, Source
from pytest_sandbox_runtime.compose.reading import UnreadableError, read_text
from pytest_sandbox_runtime.compose.schema import check
from pytest_sandbox_runtime.compose.short_forms import lengthened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_sandbox_runtime.compose.problems import Problems


class Documents:
    """Reads files, and those that they name; what is wrong with them is told ``problems``."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def model(
        self,
        paths: Sequence[str],
        directory: str,
        variables: Mapping[str, str],
        *,
        asked_by: Place | None = None,
        within: tuple[str, ...] = (),
    ) -> Node:
        """Return ``paths`` as one tree, those that they include and extend with them.

        Paths in them start from ``directory``. ``asked_by`` is the place that names them, ``within`` the files that
        are being included. Raises ComposeError where a file cannot be used at all.
        """
        merged: Node | None = None
        for path in paths:
            source = Source(path, directory, variables)
            for root in self.roots(source, asked_by):
                whole = self._whole(root, (*within, *paths))
                merged = whole if merged is None else merge(merged, whole)
        return merged or Node({}, Place(Source(paths[0], directory, variables)))

    def name(self, paths: Sequence[str], directory: str, variables: Mapping[str, str]) -> str:
        """Return the name that ``paths`` give the project, or ""; the last one that says so counts."""
        said = ""
        for path in paths:
            source = Source(path, directory, variables)
            for root in read_nodes(_text(source, None), source):
                name = root.get("name")
                # What is wrong with it is found again when the whole file is gone through.
                found = interpolate(name, lambda _: None, lambda *_: None) if name else None
                said = str(found.value) if found else said
        return said

    def roots(self, source: Source, asked_by: Place | None = None) -> list[Node]:
        """Return the documents of a file, their variables put in, each one that the schema has nothing against."""
        roots = []
        for raw in read_nodes(_text(source, asked_by), source):
            root = interpolate(raw, self.problems.add, self.problems.note)
            if not isinstance(root.value, dict):
                raise root.error("a compose file is a mapping", "it begins with services:")
            for error in check(settled(root)):
                self.problems.add(error)
            roots.append(root)
        # What follows relies on the schema.
        self.problems.check()
        return [lengthened(root) for root in roots]

    def _whole(self, root: Node, within: tuple[str, ...]) -> Node:
        for entry in root.entries.get("include", root.having(())).items:
            other = settled(included(entry, self, within))
            for kind in ("services", "networks", "volumes", "configs", "secrets", "models"):
                theirs, ours = other.get(kind), root.get(kind)
                if theirs:
                    root = root.with_entry(kind, merge(theirs, ours, (kind,)) if ours else theirs)
        return Extension(self).applied(root.without("include"))


def _text(source: Source, asked_by: Place | None) -> str:
    try:
        return read_text(source.path)
    except UnreadableError as error:
        place = asked_by or Place(source)
        what = f"{source.path} cannot be read" if asked_by else "cannot be read"
        raise place.error(f"{what}: {error}") from error
