"""``python -m benchmarks.containers IMAGE COUNT``: the seconds of each PostgreSQL of testcontainers-python, as JSON.

A process of its own, as it has to be in the network namespace of the Docker that it asks.
"""

from __future__ import annotations

import json
import sys

from testcontainers.community.postgres import PostgresContainer

from benchmarks.clock import times_of
from benchmarks.databases import FAST, MAKE, PORT, QUERY, reach


def main() -> None:
    """Start, fill and ask one for each time."""
    image, count = sys.argv[1], int(sys.argv[2])
    print(json.dumps(times_of(lambda: _ask(image), count, warm=1)))


def _ask(image: str) -> None:
    with PostgresContainer(image).with_command(["postgres", *FAST]) as postgres:
        _psql(postgres, MAKE)
        reach((postgres.get_container_host_ip(), int(postgres.get_exposed_port(PORT))))
        if not _psql(postgres, QUERY).strip():
            raise SystemExit("the database is not filled")


def _psql(postgres: PostgresContainer, statement: str) -> bytes:
    done = postgres.exec(["psql", "-U", postgres.username, "-d", postgres.dbname, "-tAc", statement])
    if done.exit_code:
        raise SystemExit(f"psql ended with {done.exit_code}: {done.output!r}")
    return bytes(done.output)


if __name__ == "__main__":
    main()
