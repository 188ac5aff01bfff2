"""PYTEST_DONT_REWRITE. Volumes, configs and secrets of the file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.fields import Section, filled, one_of, pairs, path, text
from pytest_sandbox_runtime.compose.networking import refuse_external
from pytest_sandbox_runtime.compose.unsupported import VOLUME_KEYS, refuse

if TYPE_CHECKING:
    from pytest_sandbox_runtime.compose.model import Pairs
    from pytest_sandbox_runtime.compose.nodes import Node
    from pytest_sandbox_runtime.compose.problems import Problems

_HINT = "say file, environment or content"
_SOURCES = ("file", "environment", "content")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeVolume:
    """A named volume."""

    key: str
    name: str
    origin: str = field(compare=False)
    labels: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeFile:
    """A config or a secret: the host's file ``file``, or ``content``."""

    key: str
    name: str
    origin: str = field(compare=False)
    file: str | None = None
    content: str | None = field(default=None, repr=False)


def parse_volume(key: str, node: Node, project: str, problems: Problems) -> ComposeVolume:
    """Return a volume of the file."""
    section = Section(node, problems)
    refuse(section, VOLUME_KEYS)
    refuse_external(node, problems, "leave external out: the volume is made for the run")
    section.read("driver", one_of(("local",)), "")
    return ComposeVolume(
        key=key,
        name=section.read("name", filled, f"{project}_{key}"),
        origin=str(node.place),
        labels=section.read("labels", pairs, ()),
    )


def parse_content(key: str, node: Node, project: str, problems: Problems) -> ComposeFile:
    """Return a config or a secret of the file."""
    section = Section(node, problems)
    refuse(section, dict.fromkeys(("driver", "driver_opts", "template_driver"), _HINT))
    refuse_external(node, problems, _HINT)
    said = [name for name in _SOURCES if name in node.entries]
    if not node.get("external") and len(said) != 1:
        what = "lacks file, environment or content" if not said else f"has {' and '.join(said)}"
        problems.add(node.error(what, "say one of file, environment and content"))
    return ComposeFile(
        key=key,
        name=section.read("name", filled, f"{project}_{key}"),
        origin=str(node.place),
        file=section.read("file", _file, None),
        content=section.read("content", text, None) if "content" in said else section.read("environment", _value, None),
    )


def _file(node: Node) -> str:
    found = path(node)
    if not os.path.isfile(found):
        raise node.error(f"there is no file {found}", "paths start from the file's directory")
    return found


def _value(node: Node) -> str:
    name = filled(node)
    variables = node.place.source.variables
    if name not in variables:
        raise node.error(f"the variable {name} is not set", "set it in the environment, or in the file .env")
    return variables[name]
