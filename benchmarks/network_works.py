"""The kinds of work that need networks and services: each function makes one row."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from benchmarks.bench import beside, docker_of
from benchmarks.databases import times_of_database, times_of_testcontainers
from benchmarks.networks import (
    seconds_of_crowd,
    speeds_of_forwarding,
    time_of_docker_pair,
    times_of_pair,
    times_of_redis,
)
from benchmarks.rivals import Absent
from benchmarks.table import Row, milliseconds

if TYPE_CHECKING:
    from benchmarks.bench import Bench


def pair(bench: Bench) -> Row:
    """Two sandboxes on a network; the base has to have ping(8)."""
    with bench.engine() as engine:
        ours = median(times_of_pair(engine, bench.archive, bench.count(200, 30)))
    theirs = time_of_docker_pair(bench.where, bench.tar, bench.count(10, 3)) if docker_of(bench) else None
    return Row(
        work="two sandboxes on a network, one pings the other by name, gone",
        measured=milliseconds(ours),
        beside=beside(ours, {} if theirs is None else {"docker": theirs}),
        must="<= 12 ms, <= 1/30 of docker",
        aim="7 ms",
        met=False if ours > 0.012 else None if theirs is None else ours <= theirs / 30,
    )


def networked(bench: Bench) -> Row:
    """Many sandboxes on one network."""
    count = bench.count(200, 50)
    with bench.engine() as engine:
        seconds = seconds_of_crowd(engine, bench.archive, count)
    return Row(
        work=f"{count} sandboxes on one network, all names resolving",
        measured=f"{milliseconds(seconds)} each",
        must="<= 5 ms each",
        met=seconds <= 0.005,
    )


def redis(bench: Bench) -> Row:
    """A service of a copy of the host."""
    with bench.engine() as engine:
        ours = median(times_of_redis(engine, bench.count(50, 10)))
    return Row(
        work="redis ready, and PING through address()",
        measured=milliseconds(ours),
        must="<= 40 ms",
        aim="15 ms",
        met=ours <= 0.04,
    )


def forwarded(bench: Bench) -> Row:
    """One connection, turn by turn with one over plain loopback."""
    with bench.engine() as engine:
        ours, plain = speeds_of_forwarding(engine, 1000, bench.count(15, 5))
    ratio = median(ours) / median(plain)
    return Row(
        work="forwarded throughput, one connection, address()",
        measured=f"{median(ours):.0f} MB/s",
        beside=f"plain loopback {median(plain):.0f} MB/s ({ratio:.2f} x)",
        must=">= 0.5 x",
        aim="0.8 x",
        met=ratio >= 0.5,
    )


def database(bench: Bench) -> Row:
    """A hundred megabytes for each test, beside what starts and fills a database for each."""
    theirs, absent = None, "there is no Docker"
    with bench.engine() as engine:
        ours, anew = map(median, times_of_database(engine, bench.count(20, 5)))
        try:
            if docker_of(bench):
                theirs = median(times_of_testcontainers(engine, bench.where / "containers", bench.count(3, 2)))
        except Absent as error:
            absent = str(error)
    rival = beside(ours, {"testcontainers-python": theirs}) if theirs else f"testcontainers-python: {absent}"
    return Row(
        work="PostgreSQL, seeded 100 MB, ready for a query, per test",
        measured=milliseconds(ours),
        beside=f"{rival}, {beside(ours, {'started and filled each time in a sandbox': anew})}",
        must="<= 0.2 x testcontainers-python starting and seeding it",
        aim="0.05 x",
        met=ours <= 0.2 * theirs if theirs else None,
    )
