"""PYTEST_DONT_REWRITE. Layers that need no command, written as an upper directory: Copy, File, Workdir, Download."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from typing import IO, TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.building.modes import apply_mode
from pytest_sandbox_runtime.images.building.owners import owner_of
from pytest_sandbox_runtime.images.building.selecting import Selected, select
from pytest_sandbox_runtime.images.building.staging import ROOT, Staging, owner_and_mode
from pytest_sandbox_runtime.images.layer import apply_layer
from pytest_sandbox_runtime.lowers import MergedTree
from pytest_sandbox_runtime.specs import Copy, Download, File, Workdir

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.building.selecting import Source
    from pytest_sandbox_runtime.images.building.staging import Owner
    from pytest_sandbox_runtime.images.config import Step

_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"(\xb5/\xfd")


def stage(step: Step, upper: str, lowers: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Write what ``step`` adds over ``lowers`` to ``upper``; ``others`` is the image that it copies from, if it does.

    Raises ImageError.
    """
    layer, staging = step.layer, Staging(upper, lowers)
    if isinstance(layer, Workdir):
        # By the rules of BuildKit it is the user's in force.
        staging.directory(step.config["WorkingDir"], owner_of(step.user or "0", staging.tree))
    elif isinstance(layer, File):
        owner, chmod = _words(layer, staging)
        staging.file(layer.path, io.BytesIO(layer.content), owner, apply_mode(chmod, 0o644))
    elif isinstance(layer, Download):
        _place_download(layer, step, staging)
    elif isinstance(layer, Copy):
        sources = () if not layer.sources else select(layer, _tree_of(layer, others), is_image=layer.from_ is not None)
        _copy(layer, step, staging, sources)


def copied(copy: Copy, place: str, others: tuple[str, ...]) -> str:
    """Write what ``copy``, of one source, takes to the empty directory ``place``; return where that is."""
    only, *more = select(copy, _tree_of(copy, others), is_image=copy.from_ is not None)
    if more:
        raise ImageError(f"the mount of {copy.sources[0]} could be any of several", hint="name one file or directory")
    name = "" if only.is_directory else os.path.basename(only.path)
    place_source(only, f"/{name}", copy, Staging(place, ()))
    return os.path.join(place, name)


def _tree_of(copy: Copy, others: tuple[str, ...]) -> MergedTree:
    return MergedTree(others if copy.context is None else (copy.context.directory,))


def _words(layer: Any, staging: Staging) -> tuple[Owner, str | None]:
    return ROOT if layer.chown is None else owner_of(layer.chown, staging.tree), layer.chmod


def _place_download(layer: Download, step: Step, staging: Staging) -> None:
    from pytest_sandbox_runtime.images.building.download import download

    owner, chmod = _words(layer, staging)
    target = step.path(layer.target)
    if target.endswith("/"):
        target += os.path.basename(layer.url.split("?")[0].rstrip("/"))
    with tempfile.TemporaryFile(dir=os.path.dirname(staging.upper)) as file:
        download(layer.url, layer.checksum, file)
        if layer.unpack and _looks_packed(file):
            _unpack(file, target, staging)
        else:
            staging.file(target, file, owner, apply_mode(chmod, 0o600))


def _copy(layer: Copy, step: Step, staging: Staging, sources: tuple[Source, ...]) -> None:
    target = step.path(layer.target)
    archives = [source for source in sources if layer.unpack and not source.is_directory and _is_archive(source)]
    files = [os.path.basename(source.path) for source in sources if not source.is_directory and source not in archives]
    files += [name for name, _ in layer.inline]
    into = target.endswith("/") or _is_directory(target, staging)
    if files and len(sources) + len(layer.inline) > 1 and not into:
        raise ImageError(
            f"{', '.join(files)} cannot all become {layer.target}, which is no directory",
            hint=f"end the target with a slash, {layer.target}/, and it will be one",
        )
    for source in sources:
        if source in archives:
            with open(source.selected[0].found.place, "rb") as archive:
                _unpack(archive, target, staging)
            continue
        base = target if source.is_directory or not into else os.path.join(target, os.path.basename(source.path))
        place_source(source, base, layer, staging)
    owner, chmod = _words(layer, staging)
    for name, content in layer.inline:
        where = os.path.join(target, name) if into else target
        staging.file(where, io.BytesIO(content), owner, apply_mode(chmod, 0o644))


def _is_directory(target: str, staging: Staging) -> bool:
    found = staging.tree.seen(staging.tree.resolve(target))
    return found is not None and stat.S_ISDIR(found.status.st_mode)


def place_source(source: Source, target: str, layer: Copy, staging: Staging) -> None:
    """Write all of ``source`` to ``target``: its content, if it is a directory, else itself."""
    chown = None if layer.chown is None else owner_of(layer.chown, staging.tree)
    for one in source.selected:
        mode = apply_mode(layer.chmod, one.mode, is_directory=stat.S_ISDIR(one.found.status.st_mode))
        path = os.path.join(target, one.name) if one.name else target
        _write(Selected(one.found, one.name, one.owner if chown is None else chown, mode), path, staging)


def _write(one: Selected, path: str, staging: Staging) -> None:
    kind = stat.S_IFMT(one.found.status.st_mode)
    if kind == stat.S_IFDIR:
        staging.directory(path, one.owner, one.mode)
    elif kind == stat.S_IFLNK:
        staging.link(path, os.readlink(one.found.place), one.owner)
    elif kind == stat.S_IFREG:
        with open(one.found.place, "rb") as content:
            staging.file(path, content, one.owner, one.mode)
    else:
        raise ImageError(f"{one.found.place} is neither a file, a directory nor a link, and cannot be copied")


def _is_archive(source: Source) -> bool:
    with open(source.selected[0].found.place, "rb") as file:
        return _looks_packed(file)


def _looks_packed(file: IO[bytes]) -> bool:
    head = file.read(512)
    file.seek(0)
    return head.startswith(_ARCHIVES) or head[257:262] == b"ustar"


def _unpack(archive: IO[bytes], target: str, staging: Staging) -> None:
    """Unpack an archive with its own owners and modes, as tar(1) does for root."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(staging.upper)) as place:
        apply_layer(archive, place)
        tree = MergedTree((place,))
        for name, found in tree.walk("."):
            owner, mode = owner_and_mode(found)
            _write(Selected(found, name, owner, mode), os.path.join(target, name) if name != "." else target, staging)
