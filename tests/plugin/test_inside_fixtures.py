"""What tests inside have of pytest's fixtures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

needs_inside = pytest.mark.needs("overlay-on-host")


@needs_inside
@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["plain", "distributed"])
def test_fixtures_are_made_inside(run: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    result = run(
        """
        import os, pathlib, pytest

        @pytest.fixture(scope="session")
        def made():
            pathlib.Path("/etc/made").write_text("by a fixture")
            yield os.getpid()
            assert os.uname().nodename == "sandbox"

        @pytest.mark.sandbox
        def test_sees(made, tmp_path, monkeypatch):
            assert made == os.getpid()
            assert pathlib.Path("/etc/made").read_text() == "by a fixture"
            assert tmp_path.is_dir()
        """,
        # Nothing else of the host's is there.
        f"--basetemp={tmp_path / 'elsewhere'}",
        *options,
    )
    result.assert_outcomes(passed=1)
    assert not Path("/etc/made").exists()


@needs_inside
def test_what_a_test_outside_has_made_is_seen_inside_and_unmade_outside_once(run: Run) -> None:
    result = run(
        """
        import os, pytest

        @pytest.fixture(scope="module")
        def shared(tmp_path_factory):
            tmp_path_factory.mktemp("outside")
            print("made on", os.uname().nodename)
            yield []
            print("unmade on", os.uname().nodename)

        def test_outside(shared):
            assert shared == []

        @pytest.mark.sandbox
        @pytest.mark.parametrize("turn", [1, 2])
        def test_appends(shared, turn, tmp_path):
            shared.append(turn)
            assert shared == [turn]

        def test_outside_again(shared):
            assert shared == []

        @pytest.mark.sandbox
        def test_last(shared):
            pass
        """,
        "-s",
    )
    result.assert_outcomes(passed=5)
    assert result.stdout.str().count("unmade on") == 1
    assert "unmade on sandbox" not in result.stdout.str()


@needs_inside
@pytest.mark.parametrize("fixture", ["capsys", "capfd"])
def test_a_body_reads_what_it_printed(run: Run, fixture: str) -> None:
    result = run(
        f"""
        import pytest

        @pytest.mark.sandbox
        def test_reads({fixture}):
            print("heard")
            assert {fixture}.readouterr().out == "heard\\n"
        """
    )
    result.assert_outcomes(passed=1)


@needs_inside
def test_a_body_has_the_fixtures_that_change_and_record(run: Run) -> None:
    result = run(
        """
        import logging, os, warnings, pytest

        @pytest.mark.sandbox
        def test_changes(monkeypatch, caplog):
            monkeypatch.setenv("COLOUR", "blue")
            assert os.environ["COLOUR"] == "blue"
            logging.getLogger().warning("logged")
            assert caplog.messages == ["logged"]
            with pytest.warns(UserWarning, match="recorded"):
                warnings.warn("recorded")

        def test_after():
            assert "COLOUR" not in os.environ
        """
    )
    result.assert_outcomes(passed=2)


@needs_inside
def test_a_bodys_properties_reach_the_junit_file(run: Run, pytester: pytest.Pytester) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.sandbox
        def test_records(record_property):
            record_property("colour", "blue")
        """,
        "--junitxml=junit.xml",
    )
    result.assert_outcomes(passed=1)
    assert '<property name="colour" value="blue"' in (pytester.path / "junit.xml").read_text()


STRANDED = """
import socket, sqlite3, subprocess, threading, pytest
from concurrent.futures import ThreadPoolExecutor

@pytest.fixture(scope="module")
def value():
    one, other = socket.socketpair()
    with one, other, subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process, ThreadPoolExecutor(1) as pool:
        ready = threading.Event()
        thread = threading.Thread(target=ready.wait)
        thread.start()
        yield {}
        ready.set()
        thread.join()

@pytest.fixture
def uses(value):
    pass

def test_outside(value): pass

@pytest.mark.sandbox
def test_uses(uses): pass

@pytest.mark.sandbox
def test_does_not(): pass

def test_outside_again(value): pass
"""


@needs_inside
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("one", "a socket, a connection, of which both sides would read"),
        ("(1, [], one)", "a socket, a connection, of which both sides would read"),
        ("{'server': process}", "a Popen, a process of the machine outside"),
        ("thread", "a Thread, a thread, and a fork has but the one that forks"),
        ("pool", "a ThreadPoolExecutor, a pool, whose threads or processes are outside"),
        ("sqlite3.connect('file')", "a Connection, a connection, which SQLite forbids to carry across a fork"),
    ],
    ids=["socket", "tuple", "process", "thread", "pool", "sqlite"],
)
def test_a_value_that_no_fork_can_use_is_named_with_the_reason(run: Run, value: str, why: str) -> None:
    result = run(STRANDED.replace("yield {}", f"yield {value}"))
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(
        [f"the value of the fixture 'value' was made outside, by a test that ran before this one, *: it is {why}. *"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
