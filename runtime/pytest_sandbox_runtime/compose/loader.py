"""PYTEST_DONT_REWRITE. YAML text as nodes that know their places. Anchors, aliases and ``<<`` are followed here."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.compose.extra import imported
from pytest_sandbox_runtime.compose.nodes import Node, Place
from pytest_sandbox_runtime.compose.scalars import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.compose.nodes import Source

_TAG = "tag:yaml.org,2002:"
_COLLECTIONS = (f"{_TAG}map", f"{_TAG}seq")
_ACTIONS = {"!reset": "reset", "!override": "override"}
# Aliases of aliases of aliases grow without end out of a file of a few lines; so many no file in use has.
_MOST = 100_000


def read_nodes(text: str, source: Source) -> list[Node]:
    """Return the documents of ``text``; raises ComposeError where it is no YAML, or holds what no compose file may."""
    yaml: Any = imported("yaml")
    loader = _loader_class()(text)
    try:
        documents = []
        while loader.check_node():
            root = _Conversion(source).node(loader.get_node(), Place(source, 1, 1))
            if root.value is not None:
                documents.append(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)
        raise place.error(_said(error), "the file is no YAML") from error
    except yaml.YAMLError as error:
        raise Place(source).error(str(error).splitlines()[0], "the file is no YAML") from error
    except RecursionError as error:
        raise Place(source).error("nested too deeply") from error
    finally:
        loader.dispose()
    return documents


def _said(error: Any) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)


@functools.cache
def _loader_class() -> Any:
    yaml: Any = imported("yaml")
    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # One resolver that takes everything plain, so that the tag tells `5` from `!!str 5`; what it means is said later.
    return type("_Loader", (base,), {"yaml_implicit_resolvers": {None: [("plain", re.compile(""))]}})


class _Conversion:
    """One document. Each alias is gone through again, as its keys have other names where it is used."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._count = 0
        self._open: set[int] = set()

    def node(self, raw: Any, place: Place) -> Node:
        self._count += 1
        if self._count > _MOST:
            raise place.error(f"there are more than {_MOST} values", "aliases of aliases multiply what they name")
        tag = raw.tag
        action = _ACTIONS.get(tag, "")
        if tag.startswith("!") and not action:
            raise self._at(raw, place.key).error(f"the tag {tag} means nothing here", "there are !reset and !override")
        if raw.id == "scalar":
            return Node(self._scalar(raw, place), place, action)
        if not action and tag not in _COLLECTIONS:
            raise self._at(raw, place.key).error(f"a {raw.id} cannot have the tag !!{tag.removeprefix(_TAG)}")
        if id(raw) in self._open:
            raise place.error("is an alias of what it is in itself")
        self._open.add(id(raw))
        value = self._sequence(raw, place) if raw.id == "sequence" else self._mapping(raw, place)
        self._open.remove(id(raw))
        return Node(value, place, action)

    def _scalar(self, raw: Any, place: Place) -> bool | int | float | str | None:
        text = str(raw.value)
        if raw.tag == "plain" or (raw.tag in _ACTIONS and not raw.style):
            return resolve(text)
        kind = raw.tag.removeprefix(_TAG)
        if kind == "str" or raw.tag in _ACTIONS:
            return text
        value = resolve(text)
        kinds: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
        fits = kind in kinds and isinstance(value, kinds[kind])
        if not fits:
            raise place.error(f"{text!r} is no !!{kind}", "there are !!str, !!int, !!float, !!bool and !!null")
        return value

    def _sequence(self, raw: Any, place: Place) -> tuple[Node, ...]:
        return tuple(self.node(item, self._at(item, f"{place.key}[{index}]")) for index, item in enumerate(raw.value))

    def _mapping(self, raw: Any, place: Place) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        below: dict[str, Node] = {}
        for key, value in raw.value:
            where = self._at(key, place.key)
            if key.tag == "plain" and key.value == "<<":
                for name, entry in self._merged(value, place):
                    below.setdefault(name, entry)
                continue
            name = self._name(key, where)
            where = self._at(key, f"{place.key}.{name}" if place.key else name)
            if name in entries:
                raise where.error(f"stands here again, after line {entries[name].place.line}")
            entries[name] = self.node(value, where)
        # What is merged in comes first, as it stands in files, and gives way to what is said here.
        return {**{name: entry for name, entry in below.items() if name not in entries}, **entries}

    def _merged(self, raw: Any, place: Place) -> Iterator[tuple[str, Node]]:
        for part in raw.value if raw.id == "sequence" else [raw]:
            if part.id != "mapping":
                raise self._at(part, place.key).error("<< merges mappings only")
            yield from self.node(part, place).entries.items()

    def _name(self, key: Any, place: Place) -> str:
        name = self._scalar(key, place) if key.id == "scalar" else key.id
        if not isinstance(name, str) or key.id != "scalar":
            shown = key.value if key.id == "scalar" else f"a {key.id}"
            raise place.error(f"the key {shown or 'null'} is no text", f'write it in quotes: "{shown}"')
        return name

    def _at(self, raw: Any, key: str) -> Place:
        return Place(self._source, raw.start_mark.line + 1, raw.start_mark.column + 1, key)
