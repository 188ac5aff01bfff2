"""PostgreSQL. PYTEST_DONT_REWRITE."""

from __future__ import annotations

from typing import Any

from pytest_sandbox_runtime import Image, Service, ready

_DATA = "/var/lib/postgresql/sandbox"
_BIN = "/usr/lib/postgresql/*/bin"
# What a crash of the machine would lose ends with the test anyway.
_FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_wal_size=4GB"


def postgres(
    *,
    name: str = "postgres",
    user: str = "postgres",
    database: str = "postgres",
    image: Image | None = None,
    suite: str = "bookworm",
    **words: Any,
) -> Service:
    """PostgreSQL, where everybody is ``user`` without a password; ``image`` is one like Docker's "postgres:16"."""
    words.setdefault("stop_signal", "SIGINT")
    words = {"name": name, "ports": (5432,), "url": f"postgresql://{user}@{{host}}:{{port}}/{database}", **words}
    if image is not None:
        env = {"POSTGRES_USER": user, "POSTGRES_DB": database, "POSTGRES_HOST_AUTH_METHOD": "trust"}
        # While it fills its directory, that image's server answers on its Unix socket only.
        words.setdefault("ready", ready.command(["pg_isready", "-q", "-h", "127.0.0.1"]))
        return Service(image, env={**env, **dict(words.pop("env", ()))}, **words)
    initdb = f"{_BIN}/initdb -D {_DATA} -U {user} -A trust -E UTF8 --locale=C.UTF-8 -N"
    image = (
        Image.debian(suite)
        .apt("postgresql")
        .run(f"install -d -o postgres -g postgres {_DATA} /run/postgresql")
        .user("postgres")
        .run(f"{initdb} && echo 'host all all all trust' >> {_DATA}/pg_hba.conf")
    )
    if database != "postgres":
        image = image.run(f"echo 'CREATE DATABASE {database}' | {_BIN}/postgres --single -D {_DATA} postgres")
    command = f"exec {_BIN}/postgres -D {_DATA} -c listen_addresses='*' {_FAST}"
    # It listens before it lets anybody in.
    return Service(image, command=command, **{"ready": ready.log("ready to accept connections"), **words})
