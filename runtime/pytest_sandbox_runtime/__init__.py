"""PYTEST_DONT_REWRITE. The engine: a container runtime for tests, usable without pytest.

    with Engine.open() as engine, engine.create(SandboxSpec(memory="256M")) as sandbox:
        sandbox.run(["ls", "/"])

Names are loaded when first asked for, as the supervisor imports this package too and needs none of them.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_sandbox_runtime.capturing import Capture
    from pytest_sandbox_runtime.changes import Change, Changes
    from pytest_sandbox_runtime.engine import Engine, EngineSettings
    from pytest_sandbox_runtime.errors import (
        CommandError,
        CommandFailedError,
        CommandNotFoundError,
        CommandTimeoutError,
        ComposeError,
        DockerfileError,
        EngineError,
        FileAccessError,
        ImageError,
        OfflineError,
        RegistryAuthError,
        RegistryError,
        RegistryNotFoundError,
        RegistryUnreachableError,
        SandboxClosedError,
        SandboxError,
        ServiceError,
        SpecError,
        StartError,
        UnsupportedError,
    )
    from pytest_sandbox_runtime.live_network import Join, LiveNetwork
    from pytest_sandbox_runtime.process import DEVNULL, PIPE, STDOUT, Process
    from pytest_sandbox_runtime.sandbox import Sandbox
    from pytest_sandbox_runtime.services.live_service import LiveService
    from pytest_sandbox_runtime.specs import Image, Mount, Network, Outcome, SandboxSpec, Service, Tmpfs, ready
    from pytest_sandbox_runtime.specs.sandbox import Volume
    from pytest_sandbox_runtime.terminal import Terminal
    from pytest_sandbox_runtime.violations import Violation

_HOMES = {
    "capturing": ("Capture",),
    "changes": ("Change", "Changes"),
    "engine": ("Engine", "EngineSettings"),
    "errors": (
        "CommandError",
        "CommandFailedError",
        "CommandNotFoundError",
        "CommandTimeoutError",
        "ComposeError",
        "DockerfileError",
        "EngineError",
        "FileAccessError",
        "ImageError",
        "OfflineError",
        "RegistryAuthError",
        "RegistryError",
        "RegistryNotFoundError",
        "RegistryUnreachableError",
        "SandboxClosedError",
        "SandboxError",
        "ServiceError",
        "SpecError",
        "StartError",
        "UnsupportedError",
    ),
    "live_network": ("Join", "LiveNetwork"),
    "process": ("DEVNULL", "PIPE", "STDOUT", "Process"),
    "sandbox": ("Sandbox",),
    "services.live_service": ("LiveService",),
    "specs": ("Image", "Mount", "Network", "Outcome", "SandboxSpec", "Service", "Tmpfs", "ready"),
    "specs.sandbox": ("Volume",),
    "terminal": ("Terminal",),
    "violations": ("Violation",),
}
# Declarations and errors, which a suite may import on any system.
_ANYWHERE = ("errors", "specs", "specs.sandbox")
__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Capture",
    "Change",
    "Changes",
    "CommandError",
    "CommandFailedError",
    "CommandNotFoundError",
    "CommandTimeoutError",
    "ComposeError",
    "DockerfileError",
    "Engine",
    "EngineError",
    "EngineSettings",
    "FileAccessError",
    "Image",
    "ImageError",
    "Join",
    "LiveNetwork",
    "LiveService",
    "Mount",
    "Network",
    "OfflineError",
    "Outcome",
    "Process",
    "RegistryAuthError",
    "RegistryError",
    "RegistryNotFoundError",
    "RegistryUnreachableError",
    "Sandbox",
    "SandboxClosedError",
    "SandboxError",
    "SandboxSpec",
    "Service",
    "ServiceError",
    "SpecError",
    "StartError",
    "Terminal",
    "Tmpfs",
    "UnsupportedError",
    "Violation",
    "Volume",
    "ready",
    "require_linux",
]


def require_linux() -> None:
    """Raise UnsupportedError anywhere else, where most of the engine's modules cannot even be imported."""
    if sys.platform != "linux":
        from pytest_sandbox_runtime.errors import UnsupportedError

        msg = f"sandboxes need Linux, and this is {sys.platform}"
        raise UnsupportedError(msg, hint="run the suite in a Linux virtual machine, or in WSL2")


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            if module not in _ANYWHERE:
                require_linux()
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
