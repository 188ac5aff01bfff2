"""Memcached. PYTEST_DONT_REWRITE."""

from __future__ import annotations

from typing import Any

from pytest_sandbox_runtime import Image, Service


def memcached(*, name: str = "memcached", image: Image | None = None, suite: str = "bookworm", **words: Any) -> Service:
    """Memcached; ``image`` is one like Docker's "memcached:1.6"."""
    words = {"name": name, "ports": (11211,), "url": "memcached://{host}:{port}", **words}
    return Service(image or Image.debian(suite).apt("memcached"), command=("memcached", "-u", "nobody"), **words)
