"""PYTEST_DONT_REWRITE. ``extends``: a service on top of another one, of the same file or of another."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.merging import merge
from pytest_sandbox_runtime.compose.nodes import Source
from pytest_sandbox_runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from pytest_sandbox_runtime.compose.documents import Documents
    from pytest_sandbox_runtime.compose.nodes import Node


class Extension:
    """The services of one file, each put on top of what it extends."""

    def __init__(self, documents: Documents, files: dict[str, Node] | None = None) -> None:
        self._documents = documents
        self._files = {} if files is None else files

    def applied(self, root: Node) -> Node:
        """Return ``root`` without any ``extends`` left; raises ComposeError where one leads nowhere or round."""
        services = root.get("services")
        if services is None:
            return root
        whole = {name: self._service(services, name, ()) for name in services.entries}
        return root.with_entry("services", services.having(whole))

    def _service(self, services: Node, name: str, chain: tuple[tuple[str, str], ...]) -> Node:
        service = services.entries[name]
        extends = service.get("extends")
        if extends is None:
            return service
        here = (service.place.source.path, name)
        if here in chain:
            names = [part for _, part in (*chain[chain.index(here) :], here)]
            raise extends.error(f"services extend each other: {' -> '.join(names)}")
        others, wanted = self._named(services, extends)
        if wanted not in others.entries:
            where = others.place.source.path
            raise extends.error(f"there is no service {wanted!r} in {where}", did_you_mean(wanted, others.entries))
        base = self._service(others, wanted, (*chain, here))
        return merge(base, service.without("extends"), ("services", name))

    def _named(self, services: Node, extends: Node) -> tuple[Node, str]:
        file, service = extends.get("file"), extends.entries["service"]
        return (self._services_of(file) if file else services), str(service.value)

    def _services_of(self, file: Node) -> Node:
        path = file.place.resolve(str(file.value))
        if path not in self._files:
            source = Source(_shown(path, file), os.path.dirname(path), file.place.source.variables)
            roots = self._documents.roots(source, file.place)
            services = next((found for root in roots if (found := root.get("services"))), None)
            if services is None:
                raise file.error(f"{source.path} has no services")
            self._files[path] = services
        return self._files[path]


def _shown(path: str, file: Node) -> str:
    """Return ``path`` as the file that names it is named: relative where that is."""
    return path if os.path.isabs(file.place.source.path) else os.path.relpath(path)
