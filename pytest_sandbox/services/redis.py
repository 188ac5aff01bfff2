"""Redis, and Valkey, which came of it. PYTEST_DONT_REWRITE."""

from __future__ import annotations

from typing import Any

from pytest_sandbox_runtime import Image, Service


def redis(*, name: str = "redis", image: Image | None = None, suite: str = "bookworm", **words: Any) -> Service:
    """Redis; ``image`` is one like Docker's "redis:7"."""
    return _service("redis", name, image, suite, words)


def valkey(*, name: str = "valkey", image: Image | None = None, suite: str = "trixie", **words: Any) -> Service:
    """Valkey; ``image`` is one like Docker's "valkey/valkey:8"."""
    return _service("valkey", name, image, suite, words)


def _service(program: str, name: str, image: Image | None, suite: str, words: dict[str, Any]) -> Service:
    directory = f"/var/lib/{program}" if image is None else "/data"
    options = ("--protected-mode", "no", "--bind", "*", "-::*", "--dir", directory, "--save", "3600", "1000000")
    words = {"name": name, "ports": (6379,), "url": "redis://{host}:{port}/0", **words}
    image = image or Image.debian(suite).apt(f"{program}-server")
    return Service(image, command=(f"{program}-server", *options), **words)
