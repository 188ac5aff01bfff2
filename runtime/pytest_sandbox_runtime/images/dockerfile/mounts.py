"""PYTEST_DONT_REWRITE. ``RUN --mount=type=...,option=value``: each option and which types take it."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.images.dockerfile.flags import FlagError
from pytest_sandbox_runtime.specs.checks import parse_size
from pytest_sandbox_runtime.specs.run_mounts import BindMount, CacheMount, SecretMount, TmpfsMount
from pytest_sandbox_runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.specs.context import Context
    from pytest_sandbox_runtime.specs.image import Image
    from pytest_sandbox_runtime.specs.run_mounts import RunMount

Options = dict[str, str]

_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_OPTIONS = {
    "bind": {"from", "source", "target", "readonly", "readwrite"},
    "cache": {"from", "gid", "id", "mode", "readonly", "readwrite", "sharing", "source", "target", "uid"},
    "tmpfs": {"readonly", "readwrite", "size", "target"},
    "secret": {"env", "gid", "id", "mode", "readonly", "readwrite", "required", "source", "target", "uid"},
    "ssh": {"gid", "id", "mode", "readonly", "readwrite", "required", "target", "uid"},
}
_ALONE = {"readonly", "readwrite", "required"}
_TRUE, _FALSE = {"1", "t", "true"}, {"0", "f", "false"}


def parse_options(text: str) -> Options:
    """Return the options in ``text`` under their full names, their types known; raises FlagError.

    Variables are still in them.
    """
    import csv

    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise FlagError(f"--mount={text}: {error}") from error
    options: Options = {}
    for said in fields:
        name, equals, value = said.partition("=")
        name = _ALIASES.get(name.lower(), name.lower())
        if name not in {"type", *set().union(*_OPTIONS.values())}:
            known = ["type", *sorted(_OPTIONS["cache"])]
            raise FlagError(f"--mount has no option {name!r}", did_you_mean(name, known))
        if not equals and name not in _ALONE:
            raise FlagError(f"the option {name} of --mount has no value", f"{name}=...")
        options[name] = value if equals else "true"
    if "$" in options.get("from", ""):
        raise FlagError("from= of --mount takes no variable", "FROM $variable AS name, and from=name")
    return options


def mount_of(
    options: Options, expand: Callable[[str], str], image_of: Callable[[str], Image], context: Context, workdir: str
) -> RunMount:
    """Return the mount that ``options`` say; raises FlagError, SpecError, and what its arguments raise."""
    said = {name: value if name == "from" else expand(value) for name, value in options.items()}
    kind = said.pop("type", "bind").lower()
    if kind not in _OPTIONS:
        raise FlagError(f"there is no mount of type {kind!r}", f"there are {', '.join(_OPTIONS)}")
    if kind == "ssh":
        raise FlagError("a mount of type ssh cannot be had here", "use a secret, or copy what is needed")
    for name in said:
        if name not in _OPTIONS[kind]:
            raise FlagError(f"a mount of type {kind} takes no {name}=")
    if kind == "secret":
        return _secret(said, workdir)
    if not said.get("target"):
        raise FlagError(f"a mount of type {kind} needs target=")
    target = posixpath.join(workdir, said["target"])
    if kind == "tmpfs":
        return TmpfsMount(target=target, size=parse_size(said["size"]) if "size" in said else None)
    words: dict[str, Any] = {"target": target, "source": said.get("source", "")}
    words["from_"] = image_of(said["from"]) if said.get("from") else None
    if kind == "cache":
        sharing = said.get("sharing", "shared").lower()
        words.update(_ids(said, 0o755), id=said.get("id") or None, sharing=sharing, read_only=_is_read_only(said))
        return CacheMount(**words)
    where = None if words["from_"] is not None else context
    return BindMount(**words, context=where, read_only=_is_read_only(said, default=True))


def _secret(said: Options, workdir: str) -> SecretMount:
    if said.get("source") and said.get("id"):
        raise FlagError("a secret has one of source= and id=, not both")
    target = said.get("target") or None
    name = said.get("source") or said.get("id") or posixpath.basename(target or "")
    if not name:
        raise FlagError("a mount of type secret needs id= or target=")
    place = None if target is None else posixpath.join(workdir, target)
    required = _is_true(said, "required")
    return SecretMount(id=name, target=place, env=said.get("env"), required=required, **_ids(said, 0o400))


def _ids(said: Options, mode: int) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for name, base, default in (("mode", 8, mode), ("uid", 10, 0), ("gid", 10, 0)):
        text = said.get(name, format(default, "o" if base == 8 else "d"))
        if not (text.isascii() and text.isdigit()) or (base == 8 and set(text) & set("89")) or len(text) > 10:
            raise FlagError(f"{name}={text} is no {'octal ' if base == 8 else ''}number")
        numbers[name] = int(text, base)
    return numbers


def _is_read_only(said: Options, *, default: bool = False) -> bool:
    for name in reversed(said):
        if name in {"readonly", "readwrite"}:
            return _is_true(said, name) == (name == "readonly")
    return default


def _is_true(said: Options, name: str) -> bool:
    value = said.get(name, "false").lower()
    if value not in _TRUE | _FALSE:
        raise FlagError(f"{name}={value} is neither true nor false")
    return value in _TRUE
