"""Tests that run inside: passed, failed, skipped and expected to fail, as outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

needs_inside = pytest.mark.needs("overlay-on-host")


@needs_inside
def test_a_body_that_passes_inside_passes(run: Run) -> None:
    result = run(
        """
        import os, pathlib, pytest

        @pytest.mark.sandbox
        def test_writes():
            assert os.uname().nodename == "sandbox"
            pathlib.Path("/etc/pytest-sandbox-canary").write_text("inside")

        def test_host():
            assert not pathlib.Path("/etc/pytest-sandbox-canary").exists()
        """
    )
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK


@needs_inside
def test_a_failed_assertion_inside_is_explained(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.sandbox
        def test_differs():
            left, right = {"colour": "blue"}, {"colour": "red"}
            assert left == right
        """
    )
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            ">*assert left == right",
            "E*assert {'colour': 'blue'} == {'colour': 'red'}",
            "E*Differing items:",
            "*test_a_failed_assertion_inside_is_explained.py:6: AssertionError",
            "FAILED *::test_differs - Asserti*",
        ]
    )


@needs_inside
def test_a_failed_assertion_in_a_helper_of_the_body_shows_both_frames(run: Run) -> None:
    result = run(
        """
        import pytest

        def check(number):
            assert number > 10, "too small"

        @pytest.mark.sandbox
        def test_calls():
            check(3)
        """
    )
    result.stdout.fnmatch_lines([">*check(3)", "*number = 3*", ">*assert number > 10*", "E*too small"])
    result.stdout.no_fnmatch_line("*pytest_sandbox/inside.py*")


@needs_inside
def test_errors_of_every_kind_are_shown_as_they_are_outside(run: Run) -> None:
    result = run(
        """
        import sys, unittest, pytest

        pytestmark = pytest.mark.sandbox

        def test_cause():
            try:
                {}["colour"]
            except KeyError as error:
                raise ValueError("no colour") from error

        def test_cannot_be_pickled():
            class LocalError(Exception):
                pass

            raise LocalError("of the body's own")

        def test_exits():
            sys.exit(4)

        class TestOld(unittest.TestCase):
            def test_compares(self):
                self.assertEqual(1, 2)

            @unittest.expectedFailure
            def test_expects(self):
                self.assertEqual(1, 2)

            def test_skips(self):
                self.skipTest("for a reason")
        """
    )
    result.assert_outcomes(failed=4, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "E*KeyError: 'colour'",
            "The above exception was the direct cause of the following exception:",
            "E*ValueError: no colour",
            "E*LocalError: of the body's own",
            "E*SystemExit: 4",
            "E*AssertionError: 1 != 2",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_sandbox/inside.py*")


@needs_inside
def test_a_skip_inside_is_a_skip_with_its_reason(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.sandbox
        def test_skips():
            pytest.skip("not on a Tuesday")
        """,
        "-rs",
    )
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED *test_a_skip_inside_is_a_skip_with_its_reason.py:5: not on a Tuesday"])


@needs_inside
def test_an_expected_failure_inside_is_expected(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.sandbox
        @pytest.mark.xfail(reason="bug 7", raises=ZeroDivisionError)
        def test_fails():
            1 / 0

        @pytest.mark.sandbox
        def test_says_so_late():
            pytest.xfail("bug 8")
        """,
        "-rx",
    )
    result.assert_outcomes(xfailed=2)
    result.stdout.fnmatch_lines(["XFAIL *::test_fails - bug 7*", "XFAIL *::test_says_so_late - *bug 8*"])


@needs_inside
@pytest.mark.parametrize(("strict", "outcome"), [("True", "failed"), ("False", "xpassed")])
def test_an_expected_failure_that_passes_inside_is_what_strict_says(run: Run, strict: str, outcome: str) -> None:
    result = run(
        f"""
        import pytest

        @pytest.mark.sandbox
        @pytest.mark.xfail(strict={strict}, reason="bug 7")
        def test_passes():
            pass
        """
    )
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*[[]XPASS(strict)[]] bug 7"] if strict == "True" else ["*1 xpassed*"])


@needs_inside
def test_an_error_in_a_fixture_is_an_error_and_the_body_does_not_run(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.fixture
        def broken():
            raise RuntimeError("broken fixture")

        @pytest.mark.sandbox
        def test_unreached(broken):
            print("the body ran")
            assert False
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ERROR at setup of test_unreached*", "E*RuntimeError: broken fixture"])
    result.stdout.no_fnmatch_line("the body ran")


@needs_inside
def test_an_error_in_a_fixtures_teardown_stands_beside_the_bodys_outcome(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.fixture
        def leaky():
            yield
            raise RuntimeError("broken teardown")

        @pytest.mark.sandbox
        def test_passes(leaky):
            pass
        """
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_passes*", "E*RuntimeError: broken teardown"])


@needs_inside
def test_what_the_body_printed_is_shown_by_stream_when_it_fails(run: Run) -> None:
    result = run(
        """
        import logging, os, subprocess, sys, pytest

        @pytest.mark.sandbox
        def test_talks():
            print("to stdout")
            print("to stderr", file=sys.stderr)
            subprocess.run(["echo", "by a program"])
            logging.getLogger("body").warning("to the log")
            assert False

        @pytest.mark.sandbox
        def test_talks_and_passes():
            print("never shown")
        """
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*Captured stdout call*", "to stdout", "by a program"])
    result.stdout.fnmatch_lines(["*Captured stderr call*", "to stderr"])
    result.stdout.fnmatch_lines(["*Captured log call*", "WARNING*to the log"])
    result.stdout.no_fnmatch_line("never shown")
    assert result.stdout.str().count("by a program\n") == 1
