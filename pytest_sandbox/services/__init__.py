"""Ready-made services, each a function that returns a Service: for tests, so fast before durable. PYTEST_DONT_REWRITE.

    from pytest_sandbox import sandbox_service
    from pytest_sandbox.services import postgres

    db = sandbox_service(postgres(database="shop"))

Each is made of Debian's packages, or of the ``image`` that is named. One's own is a function of ten lines like these.
"""

from __future__ import annotations

from pytest_sandbox.services.mariadb import mariadb
from pytest_sandbox.services.memcached import memcached
from pytest_sandbox.services.nginx import nginx
from pytest_sandbox.services.postgres import postgres
from pytest_sandbox.services.rabbitmq import rabbitmq
from pytest_sandbox.services.redis import redis, valkey

__all__ = ["mariadb", "memcached", "nginx", "postgres", "rabbitmq", "redis", "valkey"]
