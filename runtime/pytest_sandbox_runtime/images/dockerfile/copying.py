"""PYTEST_DONT_REWRITE. COPY and ADD as layers: paths of a context or image, heredocs, and addresses."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.images.dockerfile.expansion import expand
from pytest_sandbox_runtime.images.dockerfile.lexer import heredoc_of
from pytest_sandbox_runtime.images.dockerfile.words import WordsError
from pytest_sandbox_runtime.specs.file_layers import Copy, Download

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_sandbox_runtime.images.dockerfile.instructions import Instruction
    from pytest_sandbox_runtime.specs.context import Context
    from pytest_sandbox_runtime.specs.image import Image

_GIT = re.compile(r"(git|ssh)://|git@|https?://[^#?]+\.git([#?].*)?$|(github\.com|gitlab\.com)/")


def copy_layers(
    instruction: Instruction,
    expand_word: Callable[[str], str],
    variables: Mapping[str, str],
    image: Image | None,
    context: Context,
) -> list[Copy | Download]:
    """Return the layers that a COPY or ADD stands for; raises SpecError, ExpansionError, WordsError."""
    words, inline = _apart(instruction, variables)
    *sources, target = [expand_word(word) for word in words]
    target = target or "."
    addresses = [source for source in sources if _is_remote(source)]
    if addresses and instruction.keyword == "COPY":
        raise WordsError(f"{addresses[0]} is no path: COPY takes files only, ADD takes addresses too")
    paths = tuple(_path(source, image) for source in sources if not _is_remote(source))
    if addresses and len(sources) + len(inline) > 1 and not f"/{target}".endswith(("/", "/.")):
        raise WordsError(f"several files cannot all become {target}: end it with a slash, and it is a directory")
    checksum = instruction.flags.one("checksum")
    if checksum is not None and (len(addresses) != 1 or paths or inline):
        raise WordsError("--checksum is for one address")
    chmod, chown = (_flag(instruction, name, expand_word) for name in ("chmod", "chown"))
    layers: list[Copy | Download] = []
    if paths or inline:
        layer = Copy(
            sources=paths,
            target=target,
            inline=inline,
            context=context if paths and image is None else None,
            from_=image if paths else None,
            chmod=chmod,
            chown=chown,
            exclude=instruction.flags.all("exclude"),
            unpack=_unpacks(instruction, default=instruction.keyword == "ADD" and bool(paths)),
            link=instruction.flags.on("link"),
        )
        layers.append(layer)
    known = None if checksum is None else expand_word(checksum)
    unpack = _unpacks(instruction, default=False)
    return layers + [
        Download(url=url, target=target, checksum=known, unpack=unpack, chmod=chmod, chown=chown) for url in addresses
    ]


def _apart(instruction: Instruction, variables: Mapping[str, str]) -> tuple[list[str], tuple[tuple[str, bytes], ...]]:
    """Return the words that are paths, and the names and contents of the heredocs."""
    if instruction.is_list or not instruction.heredocs:
        return list(instruction.args), ()
    known = {heredoc.name: heredoc for heredoc in instruction.heredocs}
    words, inline = [], []
    for word in instruction.args:
        opened = heredoc_of(word)
        heredoc = known.get(opened.name) if opened is not None else None
        if heredoc is None:
            words.append(word)
            continue
        # A heredoc knows no quotes, and no other escape than the usual one.
        text = expand(heredoc.text, variables, quotes=False) if heredoc.expand else heredoc.text
        inline.append((heredoc.name, text.encode("utf-8", "surrogateescape")))
    return words, tuple(inline)


def _is_remote(source: str) -> bool:
    if _GIT.match(source):
        raise WordsError(f"{source}: git repositories are not supported; clone it beside the Dockerfile, and COPY it")
    return source.startswith(("http://", "https://"))


def _path(source: str, image: Image | None) -> str:
    if not source:
        raise WordsError("a source is empty")
    path = posixpath.normpath("/" + source.lstrip("/"))
    return path if image is not None else path.lstrip("/") or "."


def _flag(instruction: Instruction, name: str, expand_word: Callable[[str], str]) -> str | None:
    value = instruction.flags.one(name)
    return (expand_word(value) or None) if value else None


def _unpacks(instruction: Instruction, *, default: bool) -> bool:
    said = instruction.flags.one("unpack")
    return default if said is None else said == "true"
