"""PYTEST_DONT_REWRITE. ``build``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.fields import Section, filled, given, pairs, path, text
from pytest_sandbox_runtime.compose.mounts import parse_file
from pytest_sandbox_runtime.compose.unsupported import refuse_build_keys

if TYPE_CHECKING:
    from pytest_sandbox_runtime.compose.model import Pairs
    from pytest_sandbox_runtime.compose.mounts import FileUse
    from pytest_sandbox_runtime.compose.nodes import Node
    from pytest_sandbox_runtime.compose.problems import Problems
    from pytest_sandbox_runtime.compose.references import References

_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|git@|github\.com/")
_IMAGE = "docker-image://"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """Another context under a name: a directory, an ``image`` of a registry, or that of a ``service``."""

    name: str
    directory: str | None = None
    image: str | None = None
    service: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How a service's image is made. ``dockerfile`` is a path, or None for ``dockerfile_inline``, its text."""

    context: str
    dockerfile: str | None = None
    dockerfile_inline: str | None = None
    target: str | None = None
    args: Pairs = ()
    contexts: tuple[BuildContext, ...] = ()
    secrets: tuple[FileUse, ...] = ()
    labels: Pairs = ()


def parse_build(node: Node, references: References, problems: Problems) -> Build:
    """Return the ``build`` of a service."""
    section = Section(node, problems)
    refuse_build_keys(section)
    context = section.read("context", _directory, None) or node.place.source.directory
    inline, dockerfile = section.read("dockerfile_inline", text, None), section.read("dockerfile", filled, None)
    if inline is not None and dockerfile is not None:
        problems.add(node.entries["dockerfile_inline"].error("stands beside dockerfile", "say one of the two"))
    return Build(
        context=context,
        dockerfile=os.path.normpath(os.path.join(context, dockerfile or "Dockerfile")) if inline is None else None,
        dockerfile_inline=inline,
        target=section.read("target", filled, None),
        args=section.read("args", given, ()),
        contexts=_contexts(section),
        secrets=_secrets(section, references),
        labels=section.read("labels", pairs, ()),
    )


def _secrets(section: Section, references: References) -> tuple[FileUse, ...]:
    def parse(node: Node) -> FileUse:
        use = parse_file(node, "secrets")
        references.need("secrets", use.source, node.get("source") or node)
        return use

    return section.items("secrets", parse)


def _directory(node: Node) -> str:
    if _REMOTE.match(text(node)):
        raise node.error(f"{text(node)} is not on this machine", "fetch it, and name its directory")
    directory = path(node)
    if not os.path.isdir(directory):
        raise node.error(f"there is no directory {directory}", "paths start from the file's directory")
    return directory


def _contexts(section: Section) -> tuple[BuildContext, ...]:
    node = section.node.get("additional_contexts")
    found = []
    for name, entry in node.entries.items() if node else ():
        with section.problems.collecting():
            found.append(_named_context(name, entry))
    return tuple(found)


def _named_context(name: str, node: Node) -> BuildContext:
    said = "" if node.value is None else text(node)
    if said.startswith("service:"):
        return BuildContext(name=name, service=said.removeprefix("service:"))
    if said.startswith(_IMAGE):
        return BuildContext(name=name, image=said.removeprefix(_IMAGE))
    return BuildContext(name=name, directory=_directory(node))
