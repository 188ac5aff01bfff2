"""The kinds of work that concern tests inside: each function makes one row."""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING

from benchmarks.clock import times_of
from benchmarks.suites import FORKING, PLAIN, WAITING, WORKING, run_suite, times_of_suite, write_suite
from benchmarks.table import Row, milliseconds

if TYPE_CHECKING:
    from benchmarks.bench import Bench


def inside(bench: Bench) -> Row:
    """A trivial test inside a sandbox, over the same test in a plain run, and beside one in a fork."""
    count = bench.count(1000, 100)
    plain = times_of_suite(bench.where / "outside", PLAIN, count, "-p", "no:sandbox")
    forked = times_of_suite(bench.where / "forked", PLAIN, count, "-p", "no:sandbox", conftest=FORKING)
    times = times_of_suite(bench.where / "inside", PLAIN, count, "--sandbox")
    ours = median(times) - median(plain)
    ratio = median(times) / median(forked)
    return Row(
        work=f"inside, per trivial test, over a plain run; {count} tests",
        measured=f"{milliseconds(ours)} (mean {milliseconds(fmean(times) - fmean(plain))})",
        beside=f"plain {milliseconds(median(plain))}, in a fork {milliseconds(median(forked))} ({ratio:.2f} x)",
        must="<= 5 ms, <= 1.8 x a fork that pickles its reports",
        aim="<= 2.5 ms, <= 1.2 x",
        met=ours <= 0.005 and ratio <= 1.8,
    )


def session(bench: Bench) -> Row:
    """A whole run in one sandbox, over a plain run."""
    where, count = bench.where / "session", bench.count(10, 3)
    write_suite(where, PLAIN, 100)
    plain = median(times_of(lambda: run_suite(where, "-p", "no:sandbox"), count, warm=1))
    ours = median(times_of(lambda: run_suite(where, "--sandbox=session"), count, warm=1))
    return Row(
        work="a run of 100 trivial tests in one sandbox, over a plain run",
        measured=f"+{milliseconds(ours - plain)}",
        beside=f"plain {milliseconds(plain)}",
        must="<= +100 ms",
        aim="<= +40 ms",
        met=ours - plain <= 0.1,
    )


def workers(bench: Bench) -> Row:
    """Two workers of pytest-xdist over one process, with every test inside, and 20 ms of waiting in each."""
    return _workers(bench, "waiting", WAITING)


def busy_workers(bench: Bench) -> Row:
    """The same with 20 ms of the processor's time in each: on two cores one process has most of both already."""
    return _workers(bench, "working", WORKING)


def _workers(bench: Bench, what: str, body: str) -> Row:
    where, tests = bench.where / what, bench.count(500, 50)
    write_suite(where, body, tests)
    one = min(times_of(lambda: run_suite(where, "--sandbox"), 2))
    two = min(times_of(lambda: run_suite(where, "--sandbox", "-n", "2"), 2))
    plain = min(times_of(lambda: run_suite(where, "-p", "no:sandbox"), 2))
    plain_two = min(times_of(lambda: run_suite(where, "-p", "no:sandbox", "-n", "2"), 2))
    return Row(
        work=f"`-n 2` over one process, {tests} tests of 20 ms of {what} inside",
        measured=f"{one / two:.2f} x the throughput",
        beside=f"plain {plain / plain_two:.2f} x",
        must=">= 1.7 x",
        aim="1.95 x",
        met=one / two >= 1.7,
    )
