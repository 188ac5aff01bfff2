"""PYTEST_DONT_REWRITE. Checks that several declarations share, each a SpecError with what to write instead."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Pairs = tuple[tuple[str, str], ...]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
# Patterns are compiled when first used: the plugin loads this in every run.
_SIZE = r"(?i:(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?)"
_DURATION = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_NANOSECONDS["h"] = 3600 * 10**9
_OCTAL = r"[0-7]{1,4}"
_SYMBOLIC = r"[ugoa]*([-+=]([rwxXst]*|[ugo]))+(,[ugoa]*([-+=]([rwxXst]*|[ugo]))+)*"


def parse_size(size: str | float) -> int:
    """Return the bytes that ``size`` stands for: a number, or one with k, m, g or t behind it (powers of 1024)."""
    match = re.fullmatch(_SIZE, str(size).strip())
    if isinstance(size, bool) or match is None:
        raise SpecError(f"{size!r} is no size", hint='write a positive number of bytes, or for example "256M"')
    return int(float(match[1]) * _UNITS[match[2].lower()])


def parse_duration(duration: str | float) -> float:
    """Return the seconds that ``duration`` stands for: a number, or Docker's way to write one, "1m30s"."""
    hint = 'write seconds, or for example "1m30s"'
    if isinstance(duration, str):
        seconds = _parse_units(duration)
    else:
        seconds = None if isinstance(duration, bool) or not isinstance(duration, (int, float)) else duration
    if seconds is None or not 0 <= seconds < 2**63 / 10**9:
        raise SpecError(f"{duration!r} is no duration", hint=hint)
    if 0 < seconds < 0.001:
        raise SpecError(f"the duration {duration!r} is less than a millisecond", hint=hint)
    return int(seconds) if seconds == int(seconds) else seconds


def _parse_units(duration: str) -> float | None:
    if duration in ("0", "+0"):
        return 0
    text = duration.removeprefix("+")
    if not text or re.sub(_DURATION, "", text):
        return None
    return sum(float(number) * _NANOSECONDS[unit] for number, unit in re.findall(_DURATION, text)) / 10**9


def environment(env: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> Pairs:
    """Return ``env`` in its own order, each name once."""
    pairs = dict(env or ())
    for name, value in pairs.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
            raise SpecError(
                f"env has {name!r}: {value!r}, which no environment can hold",
                hint="names and values are strings, names without =",
            )
    return tuple(pairs.items())


def command_of(command: str | Sequence[str]) -> str | tuple[str, ...]:
    """Return ``command`` as declarations hold it: a line for the shell, or the words of an argv."""
    return command if isinstance(command, str) else tuple(command)


def check_text(text: object, what: str, *, empty: bool = False) -> None:
    """Raise SpecError where ``text`` is no string, is empty, or has a null byte."""
    if not isinstance(text, str) or "\0" in text or not (text or empty):
        raise SpecError(f"{what} {text!r} is no text", hint="a string that is not empty and has no null byte")


def check_command(command: object, what: str, *, empty: bool = False) -> None:
    """Raise SpecError where ``command`` is neither a line for a shell nor an argv."""
    if isinstance(command, tuple) and (command or empty):
        for word in command:
            check_text(word, f"{what} has the word", empty=True)
    elif not isinstance(command, str) or not command.strip() or "\0" in command:
        hint = "a line for the shell, or a list with the program first"
        raise SpecError(f"{what} {command!r} is no command", hint=hint)


def check_absolute(path: object, what: str) -> None:
    """Raise SpecError where ``path`` is no absolute path without .. in it."""
    check_text(path, what)
    if not os.path.isabs(str(path)) or ".." in str(path).split("/"):
        raise SpecError(f"{what} {path!r} is no absolute path without ..", hint="paths in an image begin with /")


def mode_of(mode: Any) -> Any:
    """Return ``mode`` as chmod(1) takes it."""
    return mode if mode is None or isinstance(mode, (str, bool)) else format(mode, "04o")


def check_mode(mode: object) -> None:
    """Raise SpecError where ``mode`` is nothing that chmod(1) takes."""
    if mode is None or (isinstance(mode, str) and re.fullmatch(f"{_OCTAL}|{_SYMBOLIC}", mode)):
        return
    raise SpecError(f"chmod={mode!r} is no mode", hint='for example 0o644, "644" or "u+x"')


def check_owner(owner: object) -> None:
    """Raise SpecError where ``owner`` is no user, with or without a group."""
    if owner is None:
        return
    check_text(owner, "chown")
    if str(owner).count(":") > 1 or any(letter.isspace() for letter in str(owner)) or str(owner) == ":":
        raise SpecError(f"chown={owner!r} is no owner", hint='for example "www-data", "1000:1000" or 1000')


def check_packages(packages: tuple[str, ...], what: str) -> None:
    """Raise SpecError where a name could be taken for an option or for two names."""
    for name in packages:
        if not isinstance(name, str) or not name or name.startswith("-") or any(c.isspace() or c == "\0" for c in name):
            raise SpecError(f"{what}: {name!r} is no package", hint="one name an argument, without spaces or options")
