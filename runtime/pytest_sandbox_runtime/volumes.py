"""PYTEST_DONT_REWRITE. Volumes: directories of a run, made when a sandbox first mounts one, gone with the run."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.specs.sandbox import Mount, Volume

if TYPE_CHECKING:
    from pytest_sandbox_runtime.specs import SandboxSpec

_FOLDER = "volumes"


def with_volumes(spec: SandboxSpec, run: str) -> SandboxSpec:
    """Return ``spec`` with the directories of the run ``run`` for the volumes that it mounts."""
    if not any(isinstance(mount, Mount) and isinstance(mount.source, Volume) for mount in spec.mounts):
        return spec
    mounts = tuple(
        replace(mount, source=_directory_of(mount.source, run))
        if isinstance(mount, Mount) and isinstance(mount.source, Volume)
        else mount
        for mount in spec.mounts
    )
    return replace(spec, mounts=mounts)


def _directory_of(volume: Volume, run: str) -> str:
    directory = os.path.join(run, _FOLDER, volume.name)
    if os.path.isdir(directory):
        return directory
    from filelock import FileLock

    os.makedirs(os.path.dirname(directory), exist_ok=True)
    with FileLock(f"{directory}.lock"):
        if not os.path.isdir(directory):
            _fill(directory, volume.source)
    return directory


def _fill(directory: str, source: str | None) -> None:
    """Make the volume beside its place, and move it there when it is whole."""
    partial = f"{directory}.partial"
    if source is None:
        os.mkdir(partial)
        # For whoever the program in the sandbox is.
        os.chmod(partial, 0o777)
    else:
        import shutil
        import subprocess

        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run(["cp", "-aT", "--reflink=auto", source, partial], check=True)
    os.rename(partial, directory)
