"""PYTEST_DONT_REWRITE. Compose files, read into declarations: ``load("compose.yaml")`` is a ``Project``.

Nothing here starts anything. What a file says that a sandbox cannot be is a ComposeError with its line.
"""

from __future__ import annotations

from pytest_sandbox_runtime.compose.builds import Build, BuildContext
from pytest_sandbox_runtime.compose.healthchecks import Healthcheck
from pytest_sandbox_runtime.compose.limits import Limits, Ulimit
from pytest_sandbox_runtime.compose.model import ComposeService, Dependency, Project, Restart
from pytest_sandbox_runtime.compose.mounts import BindUse, FileUse, VolumeUse
from pytest_sandbox_runtime.compose.networking import ComposeNetwork, NetworkUse, Subnet
from pytest_sandbox_runtime.compose.ports import Port
from pytest_sandbox_runtime.compose.project import load
from pytest_sandbox_runtime.compose.resources import ComposeFile, ComposeVolume
from pytest_sandbox_runtime.compose.tmpfs import TmpfsUse

__all__ = [
    "BindUse",
    "Build",
    "BuildContext",
    "ComposeFile",
    "ComposeNetwork",
    "ComposeService",
    "ComposeVolume",
    "Dependency",
    "FileUse",
    "Healthcheck",
    "Limits",
    "NetworkUse",
    "Port",
    "Project",
    "Restart",
    "Subnet",
    "TmpfsUse",
    "Ulimit",
    "VolumeUse",
    "load",
]
