"""PYTEST_DONT_REWRITE. Words as a Dockerfile has to write them, so that reading gives the same words back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLAIN = re.compile(r"[\w./@%+:,=~*?\[\]!^-]+", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def no_newline(text: str) -> str:
    """Return ``text``; raises SpecError where it has line breaks, which end an instruction."""
    if "\n" in text or "\r" in text:
        raise SpecError(f"{text!r} has a line break", hint="write it to a file by .file()")
    return text


def whole_line(text: str) -> str:
    """Return ``text``; raises SpecError where it would not be read as the rest of a line."""
    if not _is_plain_line(text):
        raise SpecError(
            f"{text!r} is no rest of a line", hint="one line, no spaces around it, no -- [ << and no \\ at its end"
        )
    return text


def escaped(text: str) -> str:
    """Return ``text`` so that neither variables nor quotes are seen in it."""
    return re.sub(r"""([\\$"'])""", r"\\\1", text)


def quoted(text: str) -> str:
    """Return ``text`` as one word that is expanded to itself."""
    # At the begin of an instruction's words, -- would be taken for a flag.
    if _PLAIN.fullmatch(text) and not text.startswith("--"):
        return text
    escapes = re.sub(r'([\\$"])', r"\\\1", text)
    return f'"{escapes}"'


def pair(name: str, value: str) -> str:
    """Return ``name=value`` as ENV, LABEL and ARG take it."""
    if re.search(r"[\s=\"'\\$]", name):
        raise SpecError(f"the name {name!r}", hint="spaces, quotes, =, $ and \\ cannot be written there")
    return f"{name}={quoted(no_newline(value)) if value else ''}"


def flag(name: str, value: str, *, expands: bool = False) -> str:
    """Return ``--name=value``."""
    text = escaped(no_newline(value)) if expands else no_newline(value)
    if _PLAIN.fullmatch(text):
        return f"--{name}={text}"
    escapes = re.sub(r'([\\"])', r"\\\1", text)
    return f'--{name}="{escapes}"'


def json_words(words: Sequence[str], *, expands: bool = False) -> str:
    """Return ``words`` as a JSON list; with ``expands``, each so that it is expanded to itself."""
    return json.dumps([escaped(word) for word in words] if expands else list(words), ensure_ascii=False)


def path_words(words: Sequence[str], *, listed: bool) -> list[str]:
    """Return ``words`` as COPY and ADD take them: as they are, or else, where ``listed``, as a JSON list."""
    if all(_PLAIN.fullmatch(word) and not word.startswith(("[", "--")) for word in words):
        return list(words)
    if listed:
        return [json_words(words, expands=True)]
    for word in words:
        if re.search(r"\s", word) or word.startswith(("[", "--")) or "<<" in word:
            raise SpecError(f"{word!r} beside a document", hint="copy it from a file")
    return [escaped(word) for word in words]


def command_words(command: str | tuple[str, ...], shell: tuple[str, ...] | None) -> str:
    """Return ``command`` as it is, if it can be, or as the argv that it stands for.

    Without ``shell`` a line that cannot be written is an error.
    """
    if isinstance(command, str) and _is_plain_line(command):
        return command
    if isinstance(command, str) and shell is None:
        raise SpecError(f"the line {command!r}", hint="write it as a list, with the shell in front")
    return json_words((*(shell or ()), command) if isinstance(command, str) else command)


def step_words(command: str | tuple[str, ...], shell: tuple[str, ...], env: Mapping[str, str]) -> str:
    """Return ``command`` as RUN takes it: one of several lines as a document, one with ``env`` started by env(1)."""
    if env:
        argv = (*shell, command) if isinstance(command, str) else command
        if "=" in argv[0]:
            raise SpecError(f"the program {argv[0]!r} with variables of its own", hint="call it by /bin/sh -c")
        return json_words(["env", *(f"{name}={value}" for name, value in env.items()), *argv])
    if isinstance(command, str) and not _is_plain_line(command) and command.endswith("\n") and command[:2] != "#!":
        opening, body = heredoc("", command.encode("utf-8", "surrogateescape"))
        return f"{opening.replace(chr(34), '')}\n{body}"
    return command_words(command, shell)


def _is_plain_line(line: str) -> bool:
    return not (
        line != line.strip()
        or line.startswith(("[", "--"))
        or line.endswith(("\\", "`"))
        or any(mark in line for mark in ("\n", "\r", "<<"))
    )


def heredoc(name: str, content: bytes) -> tuple[str, str]:
    """Return ``<<"NAME"``, and the lines that follow; without a ``name``, one that ends nothing too early."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise SpecError("its content is no text", hint="copy it from a file") from error
    if text and not text.endswith("\n"):
        raise SpecError("its content ends without a line break", hint="end it with one, or copy it from a file")
    lines = {line.rstrip("\r") for line in text.split("\n")}
    names = (name,) if name else ("EOF", *(f"EOF{number}" for number in range(len(lines) + 1)))
    free = [word for word in names if word not in lines]
    if not free or not _NAME.fullmatch(free[0]):
        raise SpecError(
            f"its content has a line {name!r}, or no document can be called that", hint="copy it from a file"
        )
    return f'<<"{free[0]}"', f"{text}{free[0]}"
