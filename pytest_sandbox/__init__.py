"""Disposable, copy-on-write, isolated Linux machines for tests. PYTEST_DONT_REWRITE.

The declarations are the engine's, pytest_sandbox_runtime, and come from there when they are first asked for, so that
pytest's start does not pay for what a run may never use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_sandbox.fixtures import sandbox_compose, sandbox_service
    from pytest_sandbox_runtime import (
        DEVNULL,
        PIPE,
        STDOUT,
        Capture,
        Changes,
        Image,
        LiveNetwork,
        LiveService,
        Mount,
        Network,
        Outcome,
        Sandbox,
        SandboxError,
        Service,
        Tmpfs,
        Volume,
        ready,
    )

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Capture",
    "Changes",
    "Image",
    "LiveNetwork",
    "LiveService",
    "Mount",
    "Network",
    "Outcome",
    "Sandbox",
    "SandboxError",
    "Service",
    "Tmpfs",
    "Volume",
    "ready",
    "sandbox_compose",
    "sandbox_service",
]


def __getattr__(name: str) -> object:
    if name in ("sandbox_compose", "sandbox_service"):
        from pytest_sandbox import fixtures

        return getattr(fixtures, name)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest_sandbox_runtime

    return getattr(pytest_sandbox_runtime, name)
