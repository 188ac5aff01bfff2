"""nginx. PYTEST_DONT_REWRITE."""

from __future__ import annotations

from typing import Any

from pytest_sandbox_runtime import Image, Service


def nginx(
    *,
    name: str = "nginx",
    site: str | None = None,
    image: Image | None = None,
    suite: str = "bookworm",
    **words: Any,
) -> Service:
    """nginx; ``site`` is the text of its server {} block, ``image`` one like Docker's "nginx:1"."""
    base = image or Image.debian(suite).apt("nginx-light")
    base = base.run("ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log")
    if site is not None:
        base = base.run("rm -f /etc/nginx/sites-enabled/default").file("/etc/nginx/conf.d/default.conf", site)
    words = {"name": name, "ports": (80,), "stop_signal": "SIGQUIT", **words}
    return Service(base, command=("nginx", "-g", "daemon off;"), **words)
