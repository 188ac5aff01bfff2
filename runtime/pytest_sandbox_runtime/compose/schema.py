"""PYTEST_DONT_REWRITE. The Compose specification's JSON schema, and its verdicts in words.

The whole schema takes fastjsonschema 80 ms and more to compile. A file uses few of its keys, and the properties that no
key of the file names cannot matter to it: without them it is some 10 ms, with nothing to keep on disk.
"""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.compose.extra import imported
from pytest_sandbox_runtime.compose.nodes import plain
from pytest_sandbox_runtime.compose.verdicts import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_sandbox_runtime.compose.nodes import Node
    from pytest_sandbox_runtime.errors import ComposeError

_FILE = os.path.join(os.path.dirname(__file__), "compose-spec.json")
# What the specification describes and its schema lacks.
_MISSING = (("service", "pre_start"),)
_PROSE = {"description", "title", "deprecated", "default", "$id", "$schema"}
# What says twice the same does no harm: Compose drops it, too.
_LAX = {"uniqueItems"}
# A variable makes a text of whatever it stands for, so what reads a value takes "true" and "80" as well.
_MAY_BE_TEXT = {"boolean", "number", "integer"}


def check(root: Node) -> Iterator[ComposeError]:
    """Yield what the schema has against a file."""
    fastjsonschema: Any = imported("fastjsonschema")
    document = plain(root)
    keys = frozenset(_keys(document) & _known())
    try:
        _validator(keys)(document)
    except fastjsonschema.JsonSchemaValueException:
        # Slower by half, it names each mistake.
        try:
            _validator(keys, fast_fail=False)(document)
        except fastjsonschema.JsonSchemaValuesException as several:
            for error in several.errors:
                yield from explained(error, root)


@functools.lru_cache(maxsize=64)
def _validator(keys: frozenset[str], *, fast_fail: bool = True) -> Callable[[object], object]:
    fastjsonschema: Any = imported("fastjsonschema")
    options = {"detailed_exceptions": not fast_fail, "fast_fail": fast_fail, "use_default": False, "use_formats": False}
    validate: Callable[[object], object] = fastjsonschema.compile(_narrowed(_schema(), keys), **options)
    return validate


@functools.cache
def _known() -> set[str]:
    """Return the names of all properties."""
    return set(_properties(_schema()))


def _properties(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", ())
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _properties(part)


@functools.cache
def _schema() -> dict[str, Any]:
    with open(_FILE, encoding="utf-8") as file:
        schema: dict[str, Any] = json.load(file)
    for name, key in _MISSING:
        schema["definitions"][name]["properties"].setdefault(key, {})
    sharp: dict[str, Any] = _sharpened(schema, schema["definitions"])
    return sharp


def _sharpened(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return ``schema`` without prose, with each choice between types made by type.

    "Valid by none of these definitions" helps nobody; all choices here are between values of different types, so that
    the one that was meant is known.
    """
    if isinstance(schema, list):
        return [_sharpened(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: part for name, part in schema.items() if name not in _LAX and (name not in _PROSE or _named(part))}
    sharp = {name: _sharpened(part, definitions) for name, part in kept.items()}
    if "oneOf" in sharp:
        choices = sharp.pop("oneOf")
        sharp["type"] = list(dict.fromkeys(kind for choice in choices for kind in _types(choice, definitions)))
        sharp["allOf"] = [{"if": {"type": _types(choice, definitions)}, "then": choice} for choice in choices]
    kinds = _types(sharp, {})
    if "string" not in kinds and _MAY_BE_TEXT & {*kinds}:
        sharp["type"] = [*kinds, "string"]
    return sharp


def _named(part: Any) -> bool:
    # A property may be called "description" or "default", too.
    return isinstance(part, dict)


def _types(schema: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    if "$ref" in schema and definitions:
        return _types(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    kinds = schema.get("type", [])
    if isinstance(kinds, dict):  # the property that is called "type"
        return []
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _keys(document: Any) -> set[str]:
    if isinstance(document, dict):
        return {*document, *(key for value in document.values() for key in _keys(value))}
    return {key for item in document for key in _keys(item)} if isinstance(document, list) else set()


def _narrowed(schema: Any, keys: frozenset[str]) -> Any:
    if isinstance(schema, list):
        return [_narrowed(part, keys) for part in schema]
    if not isinstance(schema, dict):
        return schema
    narrow = {name: _narrowed(part, keys) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict):
        used = {*keys, *schema.get("required", ())}
        narrow["properties"] = {name: part for name, part in narrow["properties"].items() if name in used}
        narrow["known"] = sorted(schema["properties"])  # for who meant one of them
    return narrow
