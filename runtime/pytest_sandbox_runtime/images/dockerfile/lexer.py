"""PYTEST_DONT_REWRITE. A Dockerfile's text as statements: continuations joined, comments gone, heredocs attached.

The rules are those of BuildKit's dockerfile/parser, whose odd ones are kept: a comment or an empty line within a
continuation is skipped, and an escape at a line's end continues it even where spaces follow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import DockerfileError
from pytest_sandbox_runtime.images.dockerfile.expansion import ExpansionError, raw_words, unquoted
from pytest_sandbox_runtime.images.dockerfile.words import WordsError, json_list, split_statement

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(\d*)<<(-?)\s*([^<]*)", re.DOTALL)
_TABS = re.compile(r"^\t+", re.MULTILINE)
_WITH_LISTS = ("ADD", "CMD", "COPY", "ENTRYPOINT", "HEALTHCHECK", "RUN", "SHELL", "VOLUME")
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")


@dataclass(frozen=True)
class Heredoc:
    """``<<name``, and the lines up to the one that says ``name``; quoted, its variables are not expanded."""

    name: str
    content: str = ""
    expand: bool = True
    chomp: bool = False

    @property
    def text(self) -> str:
        """The content, without leading tabs where ``<<-`` asks for that."""
        return _TABS.sub("", self.content) if self.chomp else self.content


@dataclass(frozen=True)
class Statement:
    """One logical line, ``text``, where it begins, and its parts: ``words`` where they are a JSON list."""

    text: str
    line: int
    keyword: str
    flags: tuple[str, ...] = ()
    rest: str = ""
    words: tuple[str, ...] | None = None
    heredocs: tuple[Heredoc, ...] = ()


@dataclass
class Source:
    """The statements of a Dockerfile, and what its first lines say of how to read it."""

    path: str
    escape: str = "\\"
    syntax: str | None = None
    statements: list[Statement] = field(default_factory=list)


def heredoc_of(word: str) -> Heredoc | None:
    """Return the heredoc that ``word`` opens, without its content, or None."""
    match = _HEREDOC.fullmatch(word)
    if match is None or not match[3]:
        return None
    names = unquoted(match[3])
    if len(names) != 1:
        return None
    raw = unquoted(match[3], raw_quotes=True)
    quotes = sum(map(names[0].count, "'\""))
    return Heredoc(names[0], expand=quotes == sum(map("".join(raw).count, "'\"")), chomp=match[2] == "-")


def read_statements(text: str, path: str) -> Source:
    """Return the statements of ``text``; raises DockerfileError, which names ``path`` and the line."""
    source = Source(path)
    lines = text.removeprefix("\ufeff").split("\n")
    first = _read_directives(lines, source)
    _Reader(source, lines, first).read()
    if not source.statements:
        raise DockerfileError("there is no instruction in it", path=path, hint="it begins with FROM")
    return source


def _read_directives(lines: list[str], source: Source) -> int:
    """Take in the directives, which only comments in front can be; return the number of their lines."""
    seen: set[str] = set()
    for number, line in enumerate(lines):
        match = _DIRECTIVE.fullmatch(line.strip())
        name = match[1].lower() if match is not None else ""
        if match is None or name not in _DIRECTIVES:
            return number
        if name in seen:
            raise DockerfileError(f"a second {name} directive", path=source.path, line=number + 1)
        seen.add(name)
        if name == "syntax":
            source.syntax = match[2]
        if name == "escape":
            if match[2] not in {"\\", "`"}:
                msg = f"{match[2]!r} is no escape character"
                raise DockerfileError(msg, path=source.path, line=number + 1, hint="there are \\ and `")
            source.escape = match[2]
    return len(lines)


def statement_of(text: str, line: int, source: Source) -> Statement:
    """Return ``text``, which is one logical line, as a statement without heredocs; raises DockerfileError."""
    keyword, flags, rest = split_statement(text, source.escape)
    words = None
    if keyword in _WITH_LISTS:
        try:
            listed = json_list(_without_type(rest) if keyword == "HEALTHCHECK" else rest)
        except WordsError as error:
            raise DockerfileError(str(error), path=source.path, line=line, instruction=keyword) from error
        words = None if listed is None else tuple(listed)
    return Statement(text.strip(), line, keyword, flags, rest, words)


def _without_type(rest: str) -> str:
    return "".join(rest.split(maxsplit=1)[1:])


class _Reader:
    """A position in the lines."""

    def __init__(self, source: Source, lines: list[str], first: int) -> None:
        self._source = source
        self._lines = lines
        self._at = first
        escape = re.escape(source.escape)
        self._continuation = re.compile(rf"(^|[^{escape}]){escape}[ \t]*$")

    def read(self) -> None:
        while self._at < len(self._lines):
            start = self._at + 1
            text = self._logical_line()
            if text.strip():
                statement = statement_of(text, start, self._source)
                heredocs = tuple(self._heredocs(statement))
                self._source.statements.append(replace(statement, heredocs=heredocs))

    def _logical_line(self) -> str:
        text, goes_on = self._joined(self._line().lstrip())
        while goes_on and self._at < len(self._lines):
            line = self._line()
            if line.strip() and not _is_comment(line):
                part, goes_on = self._joined(line)
                text += part
        return "" if _is_comment(text) else text

    def _line(self) -> str:
        line = self._lines[self._at].rstrip("\r")
        self._at += 1
        return line

    def _joined(self, line: str) -> tuple[str, bool]:
        """Return ``line`` without the escape at its end, and whether there was one."""
        match = None if _is_comment(line) else self._continuation.search(line)
        return (line, False) if match is None else (line[: match.end(1)], True)

    def _heredocs(self, statement: Statement) -> Iterator[Heredoc]:
        inner = statement
        if statement.keyword == "ONBUILD":
            inner = statement_of(statement.rest, statement.line, self._source)
        if inner.keyword not in _WITH_HEREDOCS or inner.words is not None or "<<" not in inner.rest:
            return
        try:
            opened = [heredoc for heredoc in map(heredoc_of, raw_words(statement.text)) if heredoc is not None]
        except ExpansionError:
            return  # as the shell may still make sense of it
        for heredoc in opened:
            yield Heredoc(heredoc.name, self._heredoc(heredoc, statement.line), heredoc.expand, heredoc.chomp)

    def _heredoc(self, heredoc: Heredoc, start: int) -> str:
        found: list[str] = []
        while self._at < len(self._lines):
            raw = self._lines[self._at]
            line = self._line()
            if (line.lstrip("\t") if heredoc.chomp else line) == heredoc.name:
                return "".join(found)
            found.append(f"{raw}\n")
        msg = f"the heredoc {heredoc.name} is not closed"
        hint = f"a line that says {heredoc.name} and nothing else ends it"
        raise DockerfileError(msg, path=self._source.path, line=start, hint=hint)


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")
