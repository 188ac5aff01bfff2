"""PYTEST_DONT_REWRITE. What this machine and a platform are called in an image's words."""

from __future__ import annotations

import os

_ARCHITECTURES = {
    "x86_64": "amd64",
    "i386": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armv6l": "arm/v6",
    "armv7l": "arm/v7",
    "armv8l": "arm/v7",
}


def native_platform() -> str:
    """Return this machine's platform, for example "linux/amd64"."""
    machine = os.uname().machine
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


def platform_variables(prefix: str, platform: str) -> dict[str, str]:
    """Return the variables that describe ``platform`` in a Dockerfile, with ``prefix`` BUILD or TARGET."""
    system, architecture, variant = (*platform.split("/", 2), "", "")[:3]
    return {
        f"{prefix}PLATFORM": platform,
        f"{prefix}OS": system,
        f"{prefix}ARCH": architecture,
        f"{prefix}VARIANT": variant,
    }
