"""What a test's sandboxes were refused by their networks, in its report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.needs("overlay-on-host", "networks", "python3")

SUITE = """
import socket
import pytest
from pytest_sandbox import Service, sandbox_service

LOOK_UP = "import socket\\ntry: socket.getaddrinfo('{}.example.org', 80)\\nexcept OSError: pass"

@pytest.fixture
def prepared(sandbox_factory):
    with sandbox_factory() as box:
        box.run(["python3", "-c", LOOK_UP.format("setup")], check=True)
        yield
        box.run(["python3", "-c", LOOK_UP.format("teardown")], check=True)

def test_driven(sandbox):
    sandbox.run(["python3", "-c", LOOK_UP.format("driven")], check=True)

def test_fixture(prepared):
    pass

@pytest.mark.sandbox
def test_inside():
    with pytest.raises(OSError):
        socket.create_connection(("203.0.113.7", 25))

@pytest.mark.sandbox
def test_failing():
    socket.create_connection(("203.0.113.8", 25))

@pytest.mark.sandbox
@pytest.mark.xfail(strict=True)
def test_expected():
    socket.create_connection(("203.0.113.9", 25))

def test_nothing(sandbox):
    sandbox.run(["true"], check=True)

def test_without():
    pass
"""
SAID = [
    "* refused by the network of a sandbox *",
    "*test_driven: python3 -c import socket try: * in sandbox * looked up driven.example.org, and was refused",
    '    allowed by network=Network(allow=["driven.example.org:443"])',
    "*test_fixture: * looked up setup.example.org, and was refused",
    "*test_fixture: * looked up teardown.example.org, and was refused",
    "*test_inside: the test in sandbox * connected to 203.0.113.7 port 25, and was refused",
    "    allowed by network=Network(internet=True)",
    "*test_failing: the test in sandbox * connected to 203.0.113.8 port 25, and was refused",
    "*test_expected: the test in sandbox * connected to 203.0.113.9 port 25, and was refused",
]


def test_it_is_told_and_by_default_no_more(run: Run) -> None:
    result = run(SUITE)
    result.assert_outcomes(passed=5, failed=1, xfailed=1)
    for line in SAID:
        result.stdout.fnmatch_lines([line])
    # With the failed test, too.
    result.stdout.fnmatch_lines(
        ["*- sandbox network -*", "the test in sandbox * connected to 203.0.113.8 port 25, and was refused"]
    )
    assert result.stdout.str().count("203.0.113.7") == 1


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "workers"])
def test_it_is_an_error_where_the_user_says_so(run: Run, options: tuple[str, ...]) -> None:
    result = run(SUITE, "-o", "sandbox_network_violations=error", *options)
    # In its set-up, so that the test does not run, and in its teardown.
    result.assert_outcomes(passed=2, failed=3, errors=2, xfailed=1)
    for line in SAID:
        result.stdout.fnmatch_lines([line])
    result.stdout.fnmatch_lines(["FAILED *::test_driven - python3*"])


def test_nothing_is_said_where_the_user_wants_nothing(run: Run) -> None:
    result = run(SUITE, "-o", "sandbox_network_violations=ignore")
    result.assert_outcomes(passed=5, failed=1, xfailed=1)
    result.stdout.no_fnmatch_line("*was refused*")


def test_junit_has_it(run: Run) -> None:
    run(SUITE, "--junitxml=report.xml", "-k", "driven")
    said = r'<property name="sandbox.refused" value="python3 [^>]*looked up driven.example.org, and was refused'
    assert len(re.findall(said, Path("report.xml").read_text())) == 1


def test_a_word_that_is_none_is_a_usage_error(run: Run) -> None:
    result = run(SUITE, "-o", "sandbox_network_violations=fail")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*sandbox_network_violations = 'fail' is none of ignore, warn, error"])
