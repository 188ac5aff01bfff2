"""PYTEST_DONT_REWRITE. Frozen declarations: what to run, on what, within which limits. None knows whether it runs.

What images are made of is loaded when first asked for: a run without declared images needs none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_sandbox_runtime.specs.checks import parse_size
from pytest_sandbox_runtime.specs.image import Host, Image
from pytest_sandbox_runtime.specs.outcome import Outcome
from pytest_sandbox_runtime.specs.sandbox import MIN_MEMORY, SPEC_FIELDS, Mount, SandboxSpec, Tmpfs

if TYPE_CHECKING:
    from pytest_sandbox_runtime.specs import ready
    from pytest_sandbox_runtime.specs.bases import Archive, Base, Debian, Dockerfile, Pull, Scratch, Unpacked
    from pytest_sandbox_runtime.specs.config_layers import (
        Author,
        Cmd,
        Entrypoint,
        Env,
        Expose,
        Healthcheck,
        Label,
        OnBuild,
        Shell,
        StopSignal,
        User,
        Volume,
        Workdir,
    )
    from pytest_sandbox_runtime.specs.context import Context
    from pytest_sandbox_runtime.specs.epoch import SOURCE_DATE_EPOCH
    from pytest_sandbox_runtime.specs.file_layers import Copy, Download, File, Run
    from pytest_sandbox_runtime.specs.layers import ConfigLayer, FileLayer, Layer
    from pytest_sandbox_runtime.specs.network import Network
    from pytest_sandbox_runtime.specs.packages import Apk, Apt, Pip
    from pytest_sandbox_runtime.specs.run_mounts import (
        BindMount,
        CacheMount,
        FileMount,
        RunMount,
        SecretMount,
        TmpfsMount,
    )
    from pytest_sandbox_runtime.specs.service import Seed, Service

_HOMES = {
    "bases": ("Archive", "Base", "Debian", "Dockerfile", "Pull", "Scratch", "Unpacked"),
    "config_layers": (
        "Author",
        "Cmd",
        "Entrypoint",
        "Env",
        "Expose",
        "Healthcheck",
        "Label",
        "OnBuild",
        "Shell",
        "StopSignal",
        "User",
        "Volume",
        "Workdir",
    ),
    "context": ("Context",),
    "epoch": ("SOURCE_DATE_EPOCH",),
    "file_layers": ("Copy", "Download", "File", "Run"),
    "layers": ("ConfigLayer", "FileLayer", "Layer"),
    "network": ("Network",),
    "service": ("Seed", "Service"),
    "packages": ("Apk", "Apt", "Pip"),
    "run_mounts": ("BindMount", "CacheMount", "FileMount", "RunMount", "SecretMount", "TmpfsMount"),
}
__all__ = [
    "MIN_MEMORY",
    "SOURCE_DATE_EPOCH",
    "SPEC_FIELDS",
    "Apk",
    "Apt",
    "Archive",
    "Author",
    "Base",
    "BindMount",
    "CacheMount",
    "Cmd",
    "ConfigLayer",
    "Context",
    "Copy",
    "Debian",
    "Dockerfile",
    "Download",
    "Entrypoint",
    "Env",
    "Expose",
    "File",
    "FileLayer",
    "FileMount",
    "Healthcheck",
    "Host",
    "Image",
    "Label",
    "Layer",
    "Mount",
    "Network",
    "OnBuild",
    "Outcome",
    "Pip",
    "Pull",
    "Run",
    "RunMount",
    "SandboxSpec",
    "Scratch",
    "SecretMount",
    "Seed",
    "Service",
    "Shell",
    "StopSignal",
    "Tmpfs",
    "TmpfsMount",
    "Unpacked",
    "User",
    "Volume",
    "Workdir",
    "parse_size",
    "ready",
]


def __getattr__(name: str) -> object:
    if name == "ready":
        from importlib import import_module

        return import_module(f"{__name__}.ready")
    for module, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
