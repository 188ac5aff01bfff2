"""A filled PostgreSQL for each test: a copy of a seeded one, and one that is started and filled each time."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.clock import check, times_of
from benchmarks.networks import bridged_daemon
from benchmarks.rivals import Absent
from pytest_sandbox.services import postgres
from pytest_sandbox_runtime import Image, Service

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_sandbox_runtime import Engine, LiveService

_ROWS = 1_000_000
MAKE = f"CREATE TABLE filled AS SELECT n, repeat(md5(n::text), 2) AS text FROM generate_series(1, {_ROWS}) AS n"
QUERY = f"SELECT text FROM filled WHERE n = {_ROWS}"
PORT = 5432
# What the ready-made service is started with, for the others, too.
FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_wal_size=4GB")

# What the image of Docker Hub does: it fills its directory with a server that answers on its Unix socket only.
_ENTRYPOINT = """#!/bin/bash
set -e
if [ "$(id -u)" = 0 ]; then
    install -d -o postgres -g postgres -m 700 "$PGDATA"
    install -d -o postgres -g postgres /run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    export PGPASSWORD="$POSTGRES_PASSWORD"
    initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\\n" "$POSTGRES_PASSWORD")
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl --wait --options="-c listen_addresses='' -p 5432" start
    [ "$POSTGRES_DB" = postgres ] || createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl --mode=fast --wait stop
fi
exec "$@" -c listen_addresses='*'
"""
_NAME = "bench-postgres"


def fill(live: LiveService) -> None:
    """Fill a database with a hundred megabytes."""
    live.run(["psql", "-c", MAKE], check=True)


def reach(address: tuple[str, int]) -> None:
    """Connect to ``address`` from here, as a test does."""
    socket.create_connection(address).close()


def times_of_database(engine: Engine, count: int) -> tuple[list[float], list[float]]:
    """Return the seconds until a filled PostgreSQL answers a query: a copy of one, and one that is filled then."""
    plain = postgres()
    seeded = plain.seed(fill)
    with engine.network() as network:

        def ask(service: Service, *, is_filled: bool) -> None:
            with engine.start(service, network) as live:
                if not is_filled:
                    fill(live)
                reach(live.address())
                if not live.run(["psql", "-tAc", QUERY], check=True).stdout.strip():
                    raise SystemExit("the database is not filled")

        ours = times_of(lambda: ask(seeded, is_filled=True), count, warm=1)
        anew = times_of(lambda: ask(plain, is_filled=False), max(2, count // 5), warm=1)
    return ours, anew


def times_of_testcontainers(engine: Engine, where: Path, count: int) -> list[float]:
    """Return the seconds until a PostgreSQL that testcontainers-python starts is filled and answers; raises Absent."""
    if importlib.util.find_spec("testcontainers") is None:
        raise Absent("not installed")
    where.mkdir()
    archive = where / "image.tar"
    engine.images.save(engine.images.build(_image(), tag=_NAME), str(archive), format="docker")
    address = f"unix://{where}/bridged.sock"
    # Its reaper is an image of Docker Hub, and what is in a home could name another Docker.
    environment = {**os.environ, "DOCKER_HOST": address, "TESTCONTAINERS_RYUK_DISABLED": "true", "HOME": str(where)}
    try:
        with bridged_daemon(where, ("docker", "--host", address)) as pid:
            check(("docker", "--host", address, "load", "--input", str(archive)))
            argv = ("nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-m", "benchmarks.containers")
            done = subprocess.run((*argv, _NAME, str(count)), env=environment, check=False, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Absent(f"no Docker with a network: {error}") from error
    if done.returncode:
        raise Absent(f"does not work here: {done.stderr.decode().strip().splitlines()[-1:]}")
    times: list[float] = json.loads(done.stdout)
    return times


def _image() -> Image:
    """Return what the image of Docker Hub is, of Debian's packages."""
    directory = "/var/lib/postgresql/data"
    return (
        Image.debian("bookworm")
        .apt("postgresql")
        .run("ln -s /usr/lib/postgresql/*/bin /opt/postgresql")
        .file("/entrypoint", _ENTRYPOINT, chmod=0o755)
        .env(PGDATA=directory, PATH="/opt/postgresql:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .volume(directory)
        .stop_signal("SIGINT")
        .expose(PORT)
        .entrypoint(["/entrypoint"])
        .cmd(["postgres"])
    )
