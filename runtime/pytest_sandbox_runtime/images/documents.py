"""PYTEST_DONT_REWRITE. JSON documents from strangers: whatever is wrong in one is an ImageError that says where."""

from __future__ import annotations

import json
from typing import Any

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.digest import check_digest

MAX_DOCUMENT = 4 << 20
_MAX_NUMBER = (1 << 63) - 1
_AGAIN = "fetch or make the image again; if that does not help, tell whoever made it"


class Document:
    """A JSON object. ``what`` is what errors call it; fields that are null are taken for absent, as Go does."""

    def __init__(self, fields: dict[str, Any], what: str) -> None:
        self._fields = fields
        self.what = what

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def error(self, why: str, hint: str = _AGAIN) -> ImageError:
        """Return the error that ``why`` says about this document."""
        return ImageError(f"{self.what} {why}", hint=hint)

    def text(self, name: str, default: str | None = None) -> str:
        """Return the string ``name``; without a ``default`` it must be there."""
        return str(self._checked(name, str, default))

    def flag(self, name: str) -> bool:
        """Return the boolean ``name``, false where it is absent."""
        return bool(self._checked(name, bool, default=False))

    def number(self, name: str) -> int:
        """Return the number ``name``, which must be a possible size."""
        value = self._checked(name, int, None)
        if isinstance(value, bool) or not 0 <= value <= _MAX_NUMBER:
            raise self.error(f"has {name}: {value!r:.100}, which is no size")
        return int(value)

    def digest(self, name: str) -> str:
        """Return the digest ``name``."""
        return self.checked_digest(name, self.text(name))

    def checked_digest(self, name: str, value: str) -> str:
        """Return ``value``, found in ``name``, which must be a digest."""
        try:
            return check_digest(value)
        except ImageError as error:
            raise self.error(f"has in {name} what is none: {error.message}") from error

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the strings of the array ``name``, none where it is absent."""
        values = self._checked(name, list, [])
        return tuple(self._text(f"{name}[{index}]", value) for index, value in enumerate(values))

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return the object of strings ``name``, sorted, none where it is absent."""
        values = self._checked(name, dict, {})
        return tuple(sorted((self._text(name, key), self._text(f"{name}[{key}]", values[key])) for key in values))

    def document(self, name: str) -> Document:
        """Return the object ``name``."""
        return Document(self._checked(name, dict, None), f"{self.what}: {name}")

    def documents(self, name: str) -> tuple[Document, ...]:
        """Return the objects of the array ``name``, none where it is absent."""
        values = self._checked(name, list, [])
        for index, value in enumerate(values):
            if not isinstance(value, dict):
                raise self.error(f"has {name}[{index}]: {value!r:.100}, which is no object")
        return tuple(Document(value, f"{self.what}: {name}[{index}]") for index, value in enumerate(values))

    def as_json(self) -> str:
        """Return it canonically, with what nobody asked for."""
        return canonical(self._fields).decode()

    def _checked(self, name: str, kind: type[Any], default: Any) -> Any:
        value = self._fields.get(name)
        if value is None:
            if default is None:
                raise self.error(f"has no {name}")
            return default
        if not isinstance(value, kind):
            raise self.error(f"has {name}: {value!r:.100}, which is no {_KINDS[kind]}")
        return self._text(name, value) if kind is str else value

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(f"has {name}: {value!r:.100}, which is no string")
        if not value.isascii() and not _is_unicode(value):
            raise self.error(f"has {name}: {value!r:.100}, which is half a character")
        return value


_KINDS = {str: "string", bool: "boolean", int: "number", list: "array", dict: "object"}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_json(data: bytes, what: str) -> Any:
    """Return what ``data`` says, which is JSON of at most 4 MiB."""
    if len(data) > MAX_DOCUMENT:
        raise ImageError(f"{what} has {len(data)} bytes, and may have {MAX_DOCUMENT}", hint=_AGAIN)
    try:
        return json.loads(data.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is no JSON: {str(error) or 'nested too deeply'}", hint=_AGAIN) from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def read_document(data: bytes, what: str) -> Document:
    """Return the JSON object in ``data``."""
    fields = read_json(data, what)
    if not isinstance(fields, dict):
        raise ImageError(f"{what} is no JSON object", hint=_AGAIN)
    return Document(fields, what)


def canonical(value: object) -> bytes:
    """Return ``value`` as JSON, the same bytes whatever the order of its fields."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
