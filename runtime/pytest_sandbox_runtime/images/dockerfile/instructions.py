"""PYTEST_DONT_REWRITE. A Dockerfile's statements as instructions: known, with flags and arguments of the right form.

Nothing is expanded yet: this is what can be said of an instruction wherever it stands.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import DockerfileError, SpecError
from pytest_sandbox_runtime.images.dockerfile.expansion import ExpansionError
from pytest_sandbox_runtime.images.dockerfile.flags import NO_FLAGS, FlagError, Flags, parse_flags
from pytest_sandbox_runtime.images.dockerfile.lexer import Heredoc, Source, Statement, heredoc_of, statement_of
from pytest_sandbox_runtime.images.dockerfile.mounts import parse_options
from pytest_sandbox_runtime.images.dockerfile.words import WordsError, pairs_of, split_spaces, words_of
from pytest_sandbox_runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEYWORDS = (
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"),
    *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
)
NO_TRIGGERS = frozenset({"FROM", "MAINTAINER", "ONBUILD"})
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")


@dataclass(frozen=True)
class Instruction:
    """An instruction whose form is right. ``is_list`` says that its arguments were a JSON list."""

    keyword: str
    line: int
    args: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    flags: Flags = NO_FLAGS
    is_list: bool = False
    heredocs: tuple[Heredoc, ...] = ()


@contextlib.contextmanager
def located(path: str, line: int, keyword: str) -> Iterator[None]:
    """Raise DockerfileError, with the place, for what is found wrong at ``line``."""
    try:
        yield
    except DockerfileError:
        raise
    except SpecError as error:
        raise DockerfileError(error.message, path=path, line=line, instruction=keyword, hint=error.hint) from error
    except (FlagError, WordsError, ExpansionError) as error:
        hint = getattr(error, "hint", "")
        raise DockerfileError(str(error), path=path, line=line, instruction=keyword, hint=hint) from error


def parse_instruction(statement: Statement, source: Source) -> Instruction:
    """Return what ``statement`` says; raises DockerfileError."""
    keyword, line = statement.keyword, statement.line
    parse = _PARSERS.get(keyword)
    if parse is None:
        hint = did_you_mean(keyword, KEYWORDS, f"there are {', '.join(KEYWORDS)}")
        raise DockerfileError(f"unknown instruction {keyword}", path=source.path, line=line, hint=hint)
    with located(source.path, line, keyword):
        flags = parse_flags(keyword, statement.flags)
        args, pairs = parse(statement, source)
        _check_flags(flags)
    return Instruction(keyword, line, args, pairs, flags, statement.words is not None, statement.heredocs)


_Pairs = tuple[tuple[str, str], ...]
_Parsed = tuple[tuple[str, ...], _Pairs]


def _check_flags(flags: Flags) -> None:
    for options in flags.all("mount"):
        parse_options(options)
    for name, instead in (
        ("parents", "copy each directory by itself"),
        ("device", "there are no devices in a build"),
    ):
        if flags.all(name) and not flags.all(name)[0] == "false":
            raise FlagError(f"--{name} is not supported", instead)
    if (flags.one("security") or "sandbox") != "sandbox":
        raise FlagError(f"--security={flags.one('security')} is not supported", "a step has no more rights than others")
    if (flags.one("network") or "default") not in {"default", "none", "host"}:
        raise FlagError(f"--network={flags.one('network')} is none of default, none, host")


def _from(statement: Statement, source: Source) -> _Parsed:  # noqa: ARG001
    words = split_spaces(statement.rest)
    if len(words) == 1:
        return tuple(words), ()
    if len(words) != 3 or words[1].lower() != "as":
        raise WordsError("it is followed by an image, or by image AS name")
    if not _STAGE_NAME.fullmatch(words[2].lower()):
        raise WordsError(f"{words[2]!r} cannot name a stage: a letter first, then letters, digits, _ . and -")
    return (words[0], words[2].lower()), ()


def _arg(statement: Statement, source: Source) -> _Parsed:
    words = words_of(statement.rest, source.escape)
    if not words or any(word.startswith("=") for word in words):
        raise WordsError("it is followed by name, or name=value")
    return tuple(words), ()


def _name_values(statement: Statement, source: Source) -> _Parsed:
    pairs = pairs_of(statement.rest, source.escape)
    if not pairs:
        raise WordsError("it is followed by name=value")
    return (), tuple(pairs)


def _sources(statement: Statement, source: Source) -> _Parsed:  # noqa: ARG001
    words = split_spaces(statement.rest) if statement.words is None else list(statement.words)
    if len(words) < 2:
        raise WordsError("it is followed by at least one source and the target")
    if statement.words is None and heredoc_of(words[-1]) is not None:
        raise WordsError(f"the target is missing behind {words[-1]}")
    return tuple(words), ()


def _command(statement: Statement, source: Source) -> _Parsed:  # noqa: ARG001
    if statement.words is not None:
        return statement.words, ()
    if not statement.rest:
        raise WordsError("it is followed by a command")
    return (statement.rest,), ()


def _some_command(statement: Statement, source: Source) -> _Parsed:
    parsed = _command(statement, source)
    if not parsed[0]:
        raise WordsError("its list is empty")
    return parsed


def _shell(statement: Statement, source: Source) -> _Parsed:
    if statement.words is None:
        raise WordsError('it is followed by a JSON list, such as ["/bin/bash", "-c"]')
    return _some_command(statement, source)


def _words(statement: Statement, source: Source) -> _Parsed:  # noqa: ARG001
    words = split_spaces(statement.rest) if statement.words is None else statement.words
    if not words:
        raise WordsError("it is followed by at least one word")
    return tuple(words), ()


def _text(statement: Statement, source: Source) -> _Parsed:  # noqa: ARG001
    if not statement.rest:
        raise WordsError("it is followed by one argument")
    return (statement.rest,), ()


def _healthcheck(statement: Statement, source: Source) -> _Parsed:  # noqa: ARG001
    kind, *rest = statement.rest.split(maxsplit=1) or [""]
    if kind.upper() == "NONE":
        if rest or statement.flags:
            raise WordsError("NONE takes no arguments")
        return ("NONE",), ()
    command = tuple(rest) if statement.words is None else statement.words
    if kind.upper() != "CMD" or not command:
        raise WordsError("it is followed by CMD and a command, or by NONE")
    return ("CMD", *command), ()


def _onbuild(statement: Statement, source: Source) -> _Parsed:
    inner = statement_of(statement.rest, statement.line, source)
    if not inner.keyword or inner.keyword in NO_TRIGGERS:
        raise WordsError(f"it is followed by an instruction other than {', '.join(sorted(NO_TRIGGERS))}")
    parse_instruction(inner, source)
    ends = (f"\n{heredoc.content}{heredoc.name}" for heredoc in statement.heredocs)
    return (statement.rest + "".join(ends),), ()


_PARSERS: dict[str, Callable[[Statement, Source], _Parsed]] = {
    "ADD": _sources,
    "ARG": _arg,
    "CMD": _command,
    "COPY": _sources,
    "ENTRYPOINT": _command,
    "ENV": _name_values,
    "EXPOSE": _words,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _name_values,
    "MAINTAINER": _text,
    "ONBUILD": _onbuild,
    "RUN": _some_command,
    "SHELL": _shell,
    "STOPSIGNAL": _text,
    "USER": _text,
    "VOLUME": _words,
    "WORKDIR": _text,
}
