"""PYTEST_DONT_REWRITE. Volumes: directories of a run, made when a sandbox first mounts one, gone with the run."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.kernel.files import open_beneath
from pytest_sandbox_runtime.specs.sandbox import Mount, Tmpfs, Volume

if TYPE_CHECKING:
    from pytest_sandbox_runtime.specs import SandboxSpec

_FOLDER = "volumes"
# What users of a sandbox have made may be out of an ordinary user's reach here, and in that of the supervisor.
_DENIED = (errno.EACCES, errno.EPERM)


def with_volumes(spec: SandboxSpec, run: str) -> SandboxSpec:
    """Return ``spec`` with the directories of the run ``run`` for the volumes that it mounts."""
    if not any(isinstance(mount, Mount) and isinstance(mount.source, Volume) for mount in spec.mounts):
        return spec
    mounts: list[Mount | Tmpfs] = []
    for mount in spec.mounts:
        if isinstance(mount, Mount) and isinstance(mount.source, Volume):
            check_part(mount.source, mount.subpath, run)
            mounts.append(replace(mount, source=_directory_of(mount.source, run)))
        else:
            mounts.append(mount)
    return replace(spec, mounts=tuple(mounts))


def check_part(volume: Volume, subpath: str, run: str) -> None:
    """Raise SpecError where ``volume`` has nothing at ``subpath``, or a link there leads out of it."""
    if not subpath:
        return
    try:
        os.close(open_beneath(_directory_of(volume, run), subpath))
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise SpecError(f"{subpath} leads out of the volume {volume.name} by a link") from None
        if error.errno not in _DENIED:
            hint = "it has to be there before the sandbox starts: let another one that is done by then make it"
            raise SpecError(f"the volume {volume.name} has no {subpath}", hint=hint) from None


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
