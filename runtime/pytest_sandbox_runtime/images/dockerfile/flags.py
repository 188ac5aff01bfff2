"""PYTEST_DONT_REWRITE. The ``--flags`` that each instruction takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytest_sandbox_runtime.suggestions import did_you_mean

SWITCH, ONE, MANY = "switch", "one", "many"
FLAGS: dict[str, dict[str, str]] = {
    "ADD": {
        "checksum": ONE,
        "chmod": ONE,
        "chown": ONE,
        "exclude": MANY,
        "keep-git-dir": SWITCH,
        "link": SWITCH,
        "unpack": SWITCH,
    },
    "COPY": {"chmod": ONE, "chown": ONE, "exclude": MANY, "from": ONE, "link": SWITCH, "parents": SWITCH},
    "FROM": {"platform": ONE},
    "HEALTHCHECK": {"interval": ONE, "retries": ONE, "start-interval": ONE, "start-period": ONE, "timeout": ONE},
    "RUN": {"device": MANY, "mount": MANY, "network": ONE, "security": ONE},
}


class FlagError(ValueError):
    """A flag that the instruction does not take, or not so; ``hint`` says what it takes."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Flags:
    """What flags an instruction was given."""

    values: tuple[tuple[str, str], ...] = ()

    def one(self, name: str) -> str | None:
        """Return the value of the flag ``name``; None without it."""
        return dict(self.values).get(name)

    def all(self, name: str) -> tuple[str, ...]:
        """Return the values of a flag that can be given more than once."""
        return tuple(value for flag, value in self.values if flag == name)

    def on(self, name: str) -> bool:
        """Whether the switch ``name`` is on."""
        return self.one(name) == "true"


NO_FLAGS: Final = Flags()


def parse_flags(keyword: str, words: tuple[str, ...]) -> Flags:
    """Return ``words`` as the flags of the instruction ``keyword``; raises FlagError."""
    known = FLAGS.get(keyword, {})
    found: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            flags = [f"--{flag}" for flag in known]
            takes = f"it takes {', '.join(flags)}" if known else f"{keyword} takes none"
            raise FlagError(f"unknown flag --{name}", did_you_mean(f"--{name}", flags, takes))
        if kind != MANY and name in dict(found):
            raise FlagError(f"--{name} is given twice")
        found.append((name, _switch(name, equals, value) if kind == SWITCH else _value(name, equals, value)))
    return Flags(tuple(found))


def _switch(name: str, equals: str, value: str) -> str:
    said = value.lower() if equals else "true"
    if said not in {"true", "false"}:
        raise FlagError(f"--{name}={value} is neither true nor false")
    return said


def _value(name: str, equals: str, value: str) -> str:
    if not equals:
        raise FlagError(f"--{name} has no value", f"--{name}=...")
    return value
