"""PYTEST_DONT_REWRITE. Kept sandboxes: what one has changed, on disk, and beside it a record of what else it was.

A store has them in ``kept``, named after run and sandbox; those of the last runs only.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import SandboxError
from pytest_sandbox_runtime.specs import Image, Mount, SandboxSpec, Tmpfs, Unpacked
from pytest_sandbox_runtime.supervisor.removal import remove_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_sandbox_runtime.rootfs.plan import Tree
    from pytest_sandbox_runtime.rootfs.steps import Step

# As many as pytest keeps of tmp_path.
RUNS = 3
_RECORD = ".json"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A sandbox that was kept: ``about`` says for whom, ``prefixes`` where each of its overlays was seen."""

    path: str
    about: str
    spec: SandboxSpec
    prefixes: tuple[str, ...]
    show: tuple[str, ...]
    needed: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the command calls it."""
        return os.path.basename(self.path)

    @property
    def run(self) -> str:
        """The run that it is of."""
        return self.name.partition("-")[0]

    def made(self) -> float:
        """Return when it was kept, in seconds since the epoch."""
        return os.stat(self.path + _RECORD).st_mtime

    def size(self) -> int:
        """Return the bytes that it takes on disk, as far as this user may look."""
        walk = os.walk(self.path)
        paths = (os.path.join(directory, name) for directory, _, files in walk for name in files)
        return sum(os.lstat(path).st_blocks * 512 for path in paths)


def record(kept: Kept) -> None:
    """Write down ``kept``, whose directory is yet to come, and remove what is kept of all but the last runs."""
    os.makedirs(os.path.dirname(kept.path), mode=0o700, exist_ok=True)
    data = {name: getattr(kept, name) for name in ("about", "prefixes", "show", "needed")}
    data["spec"] = {
        **asdict(kept.spec),
        "image": _words_of(kept.spec.image),
        "network": kept.spec.network if isinstance(kept.spec.network, str) else "none",
        "mounts": list(map(asdict, kept.spec.mounts)),
    }
    with open(f"{kept.path}{_RECORD}.part", "w", encoding="utf-8") as file:
        json.dump(data, file)
    os.rename(file.name, kept.path + _RECORD)
    _prune(os.path.dirname(os.path.dirname(kept.path)), kept.run)


def find(store: str) -> list[Kept]:
    """Return what is kept in ``store``, the oldest first."""
    directory = os.path.join(store, "kept")
    with contextlib.suppress(FileNotFoundError):
        names = [name.removesuffix(_RECORD) for name in os.listdir(directory) if name.endswith(_RECORD)]
        paths = [os.path.join(directory, name) for name in names]
        return sorted((_read(path) for path in paths if os.path.isdir(path)), key=Kept.made)
    return []


def get(store: str, name: str) -> Kept:
    """Return the sandbox that is kept under ``name``; raises SandboxError where there is none."""
    for kept in find(store):
        if kept.name == name:
            return kept
    raise SandboxError(f"no sandbox is kept as {name!r} in {store}", hint="pytest-sandbox ps lists those that are")


def remove(kept: Kept) -> None:
    """Remove a kept sandbox; what this user may not remove, as it belongs to their subordinate ids, the next run does.

    That takes it for what a dead run has left.
    """
    store = os.path.dirname(os.path.dirname(kept.path))
    runs = os.path.join(store, "runs")
    os.makedirs(runs, exist_ok=True)
    gone = os.path.join(runs, f"gone-{kept.name}")
    os.rename(kept.path, gone)
    os.unlink(kept.path + _RECORD)
    with contextlib.suppress(OSError):
        remove_run(gone)


def copies(path: str, tree: Tree) -> tuple[Step, ...]:
    """Return the steps that let a new sandbox of ``tree`` begin with what the one kept at ``path`` has changed.

    A copy, as overlayfs refuses a lower directory inside another (ELOOP), and "/" is one.
    """
    now = {overlay.prefix: overlay.upper for overlay in tree.overlays}
    steps: list[Step] = []
    for index, prefix in enumerate(_read(path).prefixes):
        if prefix not in now:
            raise SandboxError(f"{os.path.basename(path)} has changes in {prefix}, which is no file system any more")
        steps.append(("copy", f"{path}/upper{index}", now[prefix]))
    return tuple(steps)


def _prune(store: str, current: str) -> None:
    runs = list(dict.fromkeys(kept.run for kept in reversed(find(store)) if kept.run != current))
    for kept in find(store):
        if kept.run in runs[RUNS - 1 :]:
            # Another run may be at it.
            with contextlib.suppress(FileNotFoundError):
                remove(kept)


def _read(path: str) -> Kept:
    with open(path + _RECORD, encoding="utf-8") as file:
        data = json.load(file)
    return Kept(
        path=path,
        about=data["about"],
        spec=_spec_of(data["spec"]),
        **{name: _texts(data[name]) for name in ("prefixes", "show", "needed")},
    )


def _words_of(image: Image) -> dict[str, Any]:
    """Return what says which image it is; an engine has only the host, and what it has unpacked."""
    return {} if image.is_host else asdict(image.base)


def _spec_of(words: dict[str, Any]) -> SandboxSpec:
    image = (
        Image(Unpacked(**{**words["image"], "roots": _texts(words["image"]["roots"])}))
        if words["image"]
        else Image.host()
    )
    mounts = tuple((Mount if "source" in mount else Tmpfs)(**mount) for mount in words["mounts"])
    return SandboxSpec(**{**words, "image": image, "mounts": mounts})


def _texts(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(values)
