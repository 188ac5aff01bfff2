"""PYTEST_DONT_REWRITE. What of a build context is ignored, by .dockerignore and --exclude, as Docker matches it."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_sandbox_runtime.specs.context import Context


class PatternError(ImageError):
    """A pattern that no path could match."""


@dataclass(frozen=True)
class Pattern:
    """One pattern; with ``!`` in front it takes back what those before it ignore."""

    text: str
    is_exception: bool
    matches: re.Pattern[str]

    @classmethod
    def of(cls, text: str) -> Pattern:
        """Return the pattern ``text``; raises PatternError."""
        text = text.strip()
        is_exception = text.startswith("!")
        text = text[is_exception:].strip()
        if not text:
            raise PatternError("an exception without a pattern: '!'", hint="write the pattern right behind the !")
        cleaned = _clean(text)
        try:
            return cls(cleaned, is_exception, re.compile(_expression(cleaned), re.DOTALL))
        except re.error as error:
            raise PatternError(f"the pattern {text!r} cannot be: {error}", hint="is a [ not closed?") from error


class Ignore:
    """Patterns in their order, of which the last that matches a path, or a directory above it, decides."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns = tuple(Pattern.of(text) for text in patterns if text.strip())

    @classmethod
    def read(cls, context: Context) -> Ignore:
        """Return what the first of the context's ignore files that is there says; raises ImageError."""
        for file in context.ignore_files:
            try:
                with open(file, encoding="utf-8-sig", errors="surrogateescape") as lines:
                    return cls(parse_ignore_file(lines.read()))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise ImageError(f"cannot read {file}: {error.strerror}") from error
            except PatternError as error:
                raise PatternError(f"{file}: {error.message}", hint=error.hint) from error
        return cls()

    def ignores(self, path: str) -> bool:
        """Whether ``path``, relative to the context, is ignored."""
        path = _clean(path)
        if path == ".":
            return False
        parts = path.split("/")
        ancestors = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        ignored = False
        for pattern in self.patterns:
            if pattern.is_exception == ignored and any(map(pattern.matches.fullmatch, ancestors)):
                ignored = not pattern.is_exception
        return ignored

    def prunes(self, directory: str) -> bool:
        """Whether nothing below ``directory`` needs to be looked at: it is ignored, and no exception can lie in it."""
        if not self.ignores(directory):
            return False
        return not any(pattern.is_exception and _may_lie_in(pattern.text, directory) for pattern in self.patterns)


def parse_ignore_file(text: str) -> list[str]:
    """Return the patterns of an ignore file's ``text``: no comments, no empty lines, paths as Docker cleans them."""
    patterns = []
    for line in text.removeprefix("\ufeff").split("\n"):
        pattern = "" if line.startswith("#") else line.strip()
        if pattern:
            mark = "!" if pattern.startswith("!") else ""
            rest = pattern[len(mark) :].strip()
            patterns.append(mark + (_clean(rest) if rest else ""))
    return patterns


def _clean(path: str) -> str:
    """Return ``path`` without empty parts, ``.`` and what ``..`` takes back, relative to the context."""
    return posixpath.normpath(path).lstrip("/") or "."


def _may_lie_in(pattern: str, directory: str) -> bool:
    fixed = re.split(r"[*?\[\\]", pattern, maxsplit=1)[0]
    return fixed.startswith(f"{directory}/") or (fixed != pattern and f"{directory}/".startswith(fixed))


def _expression(pattern: str) -> str:
    """Return the expression of ``pattern``: ``*`` and ``?`` stay within a name, ``**`` is any number of names."""
    if pattern.startswith("**") and not set(pattern[2:]) & set("*?[\\") and pattern[2:3] != "/":
        return ".*" + re.escape(pattern[2:])
    found, at = [], 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*" and pattern.startswith("*", at):
            at += 2 if pattern.startswith("/", at + 1) else 1
            found.append("(?:.*/)?" if at < len(pattern) else ".*")
        elif letter in "*?":
            found.append("[^/]*" if letter == "*" else "[^/]")
        elif letter == "[":
            members, at = _bracket(pattern, at)
            found.append(members)
        elif letter == "\\" and at < len(pattern):
            found.append(re.escape(pattern[at]))
            at += 1
        else:
            found.append(re.escape(letter))
    return "".join(found)


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """Return the expression of the bracket that opens before ``at``, and where it ends."""
    negation = "^" if pattern.startswith("^", at) else ""
    at += len(negation)
    members = []
    while pattern[at : at + 1] not in ("", "]"):
        low, at = _member(pattern, at)
        if pattern.startswith("-", at):
            high, at = _member(pattern, at + 1)
            low = f"{low}-{high}"
        members.append(low)
    if not members or at >= len(pattern):
        raise PatternError(f"the pattern {pattern!r} cannot be: a bracket is empty or not closed")
    return f"[{negation}{''.join(members)}]", at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    at += pattern.startswith("\\", at)
    letter = pattern[at : at + 1]
    if letter in ("", "-"):
        raise PatternError(f"the pattern {pattern!r} cannot be: a range lacks an end")
    return re.escape(letter), at + 1
