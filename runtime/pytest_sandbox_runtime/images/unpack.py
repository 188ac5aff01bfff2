"""PYTEST_DONT_REWRITE. A root file system's tar, written below a directory: every name in it is taken for hostile.

Names stay the bytes they are in the archive, whatever the locale. What the archive does not say (a directory that is
only a part of names, the root itself) is 0755, root's and of 1970, so that an archive always makes the same tree.
An ordinary user owns all files of the tree, and does without device nodes and file capabilities.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

from pytest_sandbox_runtime.images.members import Archive, Limits
from pytest_sandbox_runtime.images.tree import Tree

if TYPE_CHECKING:
    import os

MAX_BYTES = Limits().max_bytes
MAX_RATIO = Limits().max_ratio


def unpack(
    source: str | os.PathLike[str] | IO[bytes], target: str, *, max_bytes: int = MAX_BYTES, max_ratio: int = MAX_RATIO
) -> None:
    """Write the root file system in the tar ``source``, a path or a stream, below the empty directory ``target``.

    ``max_bytes`` is how much may come out of the archive, ``max_ratio`` how many times what went in. Raises
    ImageError, and then leaves what was written.
    """
    with ExitStack() as undo:
        archive = undo.enter_context(Archive(source, Limits(max_bytes, max_ratio)))
        tree = undo.enter_context(Tree(target))
        tree.fill(archive)
