"""PYTEST_DONT_REWRITE. What a Copy takes: files of a context or another image, by names and patterns as in Docker."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.building.staging import ROOT, owner_and_mode
from pytest_sandbox_runtime.images.dockerfile.ignore import Ignore, Pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_sandbox_runtime.lowers import MergedTree, Seen
    from pytest_sandbox_runtime.specs import Copy

_WILD = re.compile(r"[*?\[]")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Selected:
    """A file, directory or link to copy: where it is, and its name below the target ("" is the target itself)."""

    found: Seen
    name: str
    owner: tuple[int, int]
    mode: int


@dataclass(frozen=True)
class Source:
    """One source of a Copy, with all that is in it. The content of a directory is copied, not the directory."""

    path: str
    is_directory: bool
    selected: tuple[Selected, ...]


def select(copy: Copy, tree: MergedTree, *, is_image: bool) -> tuple[Source, ...]:
    """Return the sources of ``copy`` in ``tree``, patterns replaced by what they match; raises ImageError."""
    ignore = Ignore() if copy.context is None else Ignore.read(copy.context)
    exclude = Ignore(copy.exclude)
    found = []
    for text in copy.sources:
        names = list(_matching(text, tree, ignore))
        if not names:
            where = "the image it is copied from" if is_image else f"the context {tree.lowers[0]}"
            hint = "its .dockerignore leaves it out" if not ignore.ignores("") and _is_there(text, tree) else ""
            raise ImageError(f"there is no {text} in {where}", hint=hint)
        found += [_source(name, tree, ignore, exclude, is_image=is_image) for name in names]
    return tuple(found)


def _is_there(text: str, tree: MergedTree) -> bool:
    return not _WILD.search(text) and tree.seen(tree.resolve(text)) is not None


def _matching(text: str, tree: MergedTree, ignore: Ignore) -> Iterator[str]:
    if not _WILD.search(text):
        name = tree.resolve(text)
        if tree.seen(name) is not None and not ignore.prunes(name):
            yield name
        return
    pattern = Pattern.of(posixpath.normpath("/" + text).lstrip("/"))
    depth = pattern.text.count("/")
    for name, _ in tree.walk(_fixed_part(pattern.text)):
        if name.count("/") == depth and pattern.matches.fullmatch(name) and not ignore.prunes(name):
            yield name


def _fixed_part(pattern: str) -> str:
    above = _WILD.split(pattern, maxsplit=1)[0].rpartition("/")[0]
    return above or "."


def _source(name: str, tree: MergedTree, ignore: Ignore, exclude: Ignore, *, is_image: bool) -> Source:
    top = tree.seen(name)
    assert top is not None
    is_directory = stat.S_ISDIR(top.status.st_mode)
    selected = tuple(_selected(name, tree, ignore, exclude, is_image=is_image))
    return Source(name, is_directory, selected)


def _selected(name: str, tree: MergedTree, ignore: Ignore, exclude: Ignore, *, is_image: bool) -> Iterator[Selected]:
    kept: set[str] = set()
    for path, found in tree.walk(name):
        below = "" if path == name else path if name == "." else path[len(name) + 1 :]
        if below and (ignore.ignores(path) or exclude.ignores(below)):
            continue
        # What an exception brings back needs the directories it lies in, though these are left out.
        owner, mode = owner_and_mode(found)
        kept.add(below)
        yield Selected(found, below, owner if is_image else ROOT, mode)


def digest_of(sources: Iterable[Source]) -> str:
    """Return a digest of all that is copied: names, kinds, modes, owners and contents."""
    total = hashlib.sha256()
    for source in sources:
        total.update(
            f"{source.path if source.is_directory else os.path.basename(source.path)}\0".encode(
                errors="surrogateescape"
            )
        )
        for one in source.selected:
            said = f"{one.name}\0{stat.S_IFMT(one.found.status.st_mode):o}\0{one.mode:o}\0{one.owner}\0"
            total.update(said.encode("utf-8", "surrogateescape"))
            total.update(_content(one.found))
    return total.hexdigest()


def _content(found: Seen) -> bytes:
    if stat.S_ISLNK(found.status.st_mode):
        return os.fsencode(os.readlink(found.place))
    if not stat.S_ISREG(found.status.st_mode):
        return b""
    digest = hashlib.sha256()
    with open(found.place, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
