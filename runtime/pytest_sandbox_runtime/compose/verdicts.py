"""PYTEST_DONT_REWRITE. What the schema has against a value, in words, at the place where the value stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.compose.nodes import Node
    from pytest_sandbox_runtime.errors import ComposeError

_KINDS = {
    "string": "a text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "object": "a mapping",
    "array": "a list",
    "null": "nothing",
}
_NAMES = "names have letters, digits, ., _ and - only"


def kind_of(value: object) -> str:
    """Return what ``value`` is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return "a number"
    return "a text" if isinstance(value, str) else "a mapping" if isinstance(value, dict) else "a list"


def explained(error: Any, root: Node) -> Iterator[ComposeError]:
    """Yield what fastjsonschema's ``error`` about ``root`` means to who wrote the file."""
    node = _located(root, error.name.removeprefix("data"))
    rule, wanted = error.rule, error.rule_definition
    if rule == "additionalProperties":
        yield from _unknown(node, error.definition)
    elif rule == "required":
        for name in wanted:
            if name not in node.entries:
                yield node.error(f"lacks {name}")
    elif rule == "type":
        # "true" is taken for true, as it may come from a variable, and is nothing to ask for.
        kinds = ["boolean"] if {*wanted} == {"boolean", "string"} else wanted
        yield _wrong_type(node, [kinds] if isinstance(kinds, str) else kinds)
    elif rule == "enum":
        hint = did_you_mean(str(node.value), wanted, f"there is {_listed([str(word) for word in wanted])}")
        yield node.error(f"{node.value!r} is not known", hint)
    elif rule in {"minimum", "maximum"}:
        yield node.error(f"{node.value} is {'less' if rule == 'minimum' else 'more'} than {wanted}")
    else:
        yield node.error(f"{node.value!r} is not of the form {wanted}")


def _unknown(node: Node, definition: dict[str, Any]) -> Iterator[ComposeError]:
    known = definition.get("known", ())
    patterns = [pattern for pattern in definition.get("patternProperties", ()) if pattern != "^x-"]
    for name, entry in node.entries.items():
        if name in known or name.startswith("x-"):
            continue
        if known:
            yield entry.error("there is no such key", did_you_mean(name, known))
        elif patterns and not _fits(name):
            yield entry.error(f"{name!r} is no name", _NAMES)


def _fits(name: str) -> bool:
    return bool(name) and all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in name)


def _wrong_type(node: Node, kinds: list[str]) -> ComposeError:
    found = kind_of(node.value)
    hint = ""
    if "string" in kinds and isinstance(node.value, (bool, int, float)):
        said = str(node.value).lower() if isinstance(node.value, bool) else node.value
        hint = f'write it in quotes: "{said}"'
    elif node.value is None:
        hint = "leave the key out, or say what it is"
    wanted = _listed([_KINDS[kind] for kind in kinds])
    return node.error(f"this is {found}, and has to be {wanted}", hint)


def _listed(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _located(node: Node, name: str) -> Node:
    """Return what fastjsonschema calls ``name``: its keys are joined by dots, and may have dots themselves."""
    while name:
        if name.startswith("["):
            index, _, name = name[1:].partition("]")
            node = node.items[int(index)]
            continue
        rest = name.removeprefix(".")
        fits = [key for key in node.entries if rest == key or rest.startswith((f"{key}.", f"{key}["))]
        if not fits:
            return node
        key = max(fits, key=len)
        node, name = node.entries[key], rest[len(key) :]
    return node
