"""RabbitMQ. PYTEST_DONT_REWRITE."""

from __future__ import annotations

from typing import Any

from pytest_sandbox_runtime import Image, Service, ready

_OPEN = "[{rabbit, [{loopback_users, []}]}].\n"


def rabbitmq(*, name: str = "rabbitmq", image: Image | None = None, suite: str = "bookworm", **words: Any) -> Service:
    """RabbitMQ, whose user is guest; ``image`` is one like Docker's "rabbitmq:3"."""
    words = {
        "name": name,
        "ports": (5672,),
        "url": "amqp://guest:guest@{host}:{port}/%2F",
        "ready": ready.all_of(ready.port(5672), ready.log("startup complete|completed with")),
        "timeout": 120,
        **words,
    }
    if image is not None:
        return Service(image, **words)
    image = Image.debian(suite).apt("rabbitmq-server").file("/etc/rabbitmq/advanced.config", _OPEN)
    return Service(image, command="exec rabbitmq-server", **words)
