"""Other plugins, and pytest's own that look back at an earlier run, do inside what they do in a plain run."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.plugin.sameness import body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.needs("overlay-on-host")

ASYNCIO = """
import asyncio, pytest

@pytest.fixture
async def answer():
    await asyncio.sleep(0)
    yield 42

async def test_passes(answer):
    assert answer == 42

async def test_fails():
    assert await asyncio.sleep(0, 1) == 2

async def test_talks_to_a_server_of_its_own():
    async def serve(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\\n")
        assert await reader.readline() == b"hello\\n"
        writer.close()

async def test_starts_a_process():
    process = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
    assert await process.communicate() == (b"hello\\n", None)
"""
ANYIO = """
import anyio, pytest

pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module", params=["asyncio"])
def anyio_backend(request):
    return request.param

@pytest.fixture(scope="module")
async def shared(anyio_backend):
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
        yield []

async def test_first(shared):
    assert shared == []

async def test_fails(shared):
    await anyio.sleep(0)
    assert shared == [1]
"""
TIMEOUT = """
import signal, pytest

@pytest.mark.timeout(0.3)
def test_waits():
    signal.pause()

@pytest.mark.timeout(0.3)
def test_waits_in_its_fixture(tmp_path, request):
    request.addfinalizer(signal.pause)

@pytest.mark.timeout(60)
def test_passes():
    pass
"""
ORDER = """
import random, pytest

@pytest.mark.parametrize("number", range(6))
def test_is_drawn(number):
    print("drawn", random.random())
    assert number != 3
"""
RERUNS = """
import pathlib, pytest

@pytest.fixture
def tries():
    file = pathlib.Path("tries")
    file.write_text(file.read_text() + "." if file.exists() else ".")
    return file.read_text()

@pytest.mark.flaky(reruns=2)
def test_passes_the_third_time(tries):
    assert tries == "..."
    pathlib.Path("tries").unlink()

@pytest.mark.flaky(reruns=2)
def test_never_passes():
    assert False
"""


@pytest.mark.parametrize(
    ("suite", "options"),
    [
        (ASYNCIO, ("-p", "asyncio", "--asyncio-mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")),
        (ANYIO, ("-p", "anyio")),
        (TIMEOUT, ("-p", "timeout")),
        (ORDER, ("-p", "randomly", "--randomly-seed=7", "-rP")),
        (RERUNS, ("-p", "rerunfailures")),
    ],
    ids=["asyncio", "anyio", "timeout", "randomly", "rerunfailures"],
)
def test_a_plugin_does_inside_what_it_does_in_a_plain_run(run: Run, suite: str, options: tuple[str, ...]) -> None:
    plain = run(suite, *options, "-v")
    assert {"passed", "failed"} <= plain.parseoutcomes().keys()
    for unit in ("test", "session"):
        assert body(run(suite, *options, "-v", f"--sandbox={unit}")) == body(plain)


def test_one_that_a_time_out_ends_is_one_failure_and_the_rest_goes_on(run: Run) -> None:
    result = run(TIMEOUT, "-p", "timeout", "--timeout-method=thread", "--sandbox", "-k", "not fixture")
    result.assert_outcomes(failed=1, passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*in test_waits", "*signal.pause()", "*exit status 1, without a report"])


CRASH = """
import os, pytest

def test_before(): pass
@pytest.mark.flaky(reruns=1)
def test_dies(): os._exit(3)
@pytest.mark.xfail
def test_is_not_expected_to_die(): os._exit(4)
def test_after(): pass
"""


def test_what_dies_is_no_concern_of_plugins_inside(run: Run) -> None:
    result = run(CRASH, "-p", "rerunfailures", "--sandbox")
    result.assert_outcomes(failed=2, passed=2)
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


@pytest.mark.parametrize(
    ("option", "unit"), [("--lf", "test"), ("--ff", "module"), ("--nf", "session"), ("--sw", "test")]
)
def test_what_failed_the_last_time_is_known_as_in_a_plain_run(run: Run, unit: str, option: str) -> None:
    suite = "\n".join(f"def test_{number}(): assert {number} not in (2, 4)" for number in range(6))
    second = []
    for options in ((), (f"--sandbox={unit}",)):
        run(suite, *options, "--cache-clear")
        second.append(body(run(suite, *options, option, "-v")))
    assert second[1] == second[0]


@pytest.mark.parametrize(
    ("dist", "unit"),
    [
        ("load", "test"),
        ("loadscope", "module"),
        ("loadfile", "module"),
        ("loadgroup", "session"),
        ("worksteal", "test"),
        ("each", "session"),
    ],
)
def test_distributed_as_always(run: Run, pytester: pytest.Pytester, dist: str, unit: str) -> None:
    pytester.makepyfile(
        test_other="""
        import pytest
        @pytest.mark.xdist_group("one")
        @pytest.mark.parametrize("number", range(5))
        def test(number, tmp_path, record_property):
            record_property("number", number)
            assert number != 3
        """
    )
    suite = """
        import pytest
        class TestOne:
            def test_a(self): pass
            def test_b(self): assert 0
        @pytest.mark.xdist_group("one")
        def test_c(): pytest.skip("here")
        """
    run(suite, "-n", "2", "--dist", dist, "--junitxml=plain.xml")
    run(suite, "-n", "2", "--dist", dist, "--junitxml=inside.xml", f"--sandbox={unit}")
    plain, inside = cases("plain.xml"), cases("inside.xml")
    assert inside == plain
    assert len(plain) >= 8


def said(case: ET.Element) -> Iterator[str]:
    for part in case.iter():
        yield part.get("message", part.get("value", ""))


def cases(report: str) -> list[tuple[str, ...]]:
    """Return each test of JUnit's report, with what it says of it that no worker's name is in."""
    return sorted(
        (case.attrib["classname"], case.attrib["name"], *said(case)) for case in ET.parse(report).iter("testcase")
    )
