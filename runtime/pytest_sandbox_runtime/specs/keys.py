"""PYTEST_DONT_REWRITE. What a declaration is known by in the cache: the same text for the same declaration, anywhere.

Defaults are left out, so that a field that is added later changes no key. What lies on the host's disk is not in it:
whoever builds adds the digests of what is read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pytest_sandbox_runtime.specs.image import Image

_Value = TypeVar("_Value")


def key_of(declaration: object) -> str:
    """Return ``declaration``, a base or a layer, as canonical JSON."""
    return json.dumps(_plain(declaration), sort_keys=True, separators=(",", ":"))


def image_key(image: Image) -> str:
    """Return the digest of the keys of the image's base and layers."""
    text = "\n".join(key_of(part) for part in (image.base, *image.layers))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    from pytest_sandbox_runtime.specs.image import Image

    if isinstance(value, Image):
        return value.key()
    if isinstance(value, bytes):
        return "sha256:" + hashlib.sha256(value).hexdigest()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        said = {field.name: _told(value, field) for field in fields(value) if field.metadata.get("key", True)}
        told = {name: _plain(part) for name, part in said.items() if not _is_default(value, name, part)}
        return {"type": type(value).__name__, **told}
    return value


def _told(declaration: Any, field: Field[_Value]) -> Any:
    value, unsaid = getattr(declaration, field.name), field.metadata.get("key_without", ())
    return tuple(pair for pair in value if pair[0] not in unsaid) if unsaid else value


def _is_default(declaration: Any, name: str, value: _Value) -> bool:
    field: Field[_Value] = type(declaration).__dataclass_fields__[name]
    return field.default is not MISSING and field.default == value
