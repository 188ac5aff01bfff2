"""Tests inside that end in other ways than by a report, and what of them reaches the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

needs_inside = pytest.mark.needs("overlay-on-host")


@needs_inside
@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os._exit(3)", "ended with exit status 3"),
        ("os._exit(0)", "ended with exit status 0"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
    ],
    ids=["status", "success", "kill", "fault"],
)
def test_a_body_that_ends_without_a_report_is_one_failure_and_the_rest_goes_on(run: Run, end: str, said: str) -> None:
    result = run(
        f"""
        import faulthandler, os, resource, signal, pytest

        @pytest.mark.sandbox
        def test_ends():
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            {end}

        @pytest.mark.sandbox
        def test_inside_after():
            pass

        def test_outside_after():
            pass
        """
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([f"*the test's process {said}, without a report*"])
    result.stdout.no_fnmatch_line("*Traceback*")


@needs_inside
@pytest.mark.parametrize("unit", ["test", "module"])
def test_what_a_body_that_has_died_left_behind_does_not_hide_it(run: Run, unit: str) -> None:
    result = run(
        """
        import os, signal

        def test_leaves():
            if os.fork() == 0:
                signal.pause()
            os._exit(3)

        def test_after(): pass
        """,
        f"--sandbox={unit}",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["the test's process ended with exit status 3, without a report"])


@needs_inside
def test_a_body_that_outlasts_its_timeout_is_one_failure(run: Run) -> None:
    result = run(
        """
        import signal, pytest

        @pytest.mark.sandbox(timeout=0.2)
        def test_waits():
            signal.pause()

        def test_after():
            pass
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*the test did not end within 0.2 s, and its sandbox was killed*"])


@needs_inside
@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["plain", "distributed"])
def test_a_bodys_warnings_reach_the_summary(run: Run, options: tuple[str, ...]) -> None:
    result = run(
        """
        import warnings, pytest

        @pytest.mark.sandbox
        def test_warns():
            warnings.warn("mind the gap", UserWarning)
        """,
        *options,
    )
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*warnings summary*", "*::test_warns", "*:5: UserWarning: mind the gap"])


@needs_inside
def test_warnings_are_errors_inside_where_they_are_outside(run: Run) -> None:
    result = run(
        """
        import warnings, pytest

        @pytest.mark.sandbox
        def test_warns():
            warnings.warn("mind the gap", UserWarning)
        """,
        "-W",
        "error",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*UserWarning: mind the gap"])


@needs_inside
@pytest.mark.parametrize("body", ["assert False", "os._exit(3)"])
def test_the_first_failure_inside_ends_the_run_where_asked(run: Run, body: str) -> None:
    result = run(
        f"""
        import os, pytest

        pytestmark = pytest.mark.sandbox

        def test_first():
            {body}

        def test_second():
            pass
        """,
        "-x",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])


@needs_inside
def test_what_a_body_prints_goes_to_the_terminal_once_without_capture(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.sandbox
        def test_prints():
            print("said aloud")
        """,
        "-s",
    )
    result.assert_outcomes(passed=1)
    assert result.stdout.str().count("said aloud") == 1


@pytest.mark.needs("overlay-on-host", "cgroup-memory")
@pytest.mark.parametrize("unit", ["test", "module"])
def test_one_that_takes_too_much_memory_is_reported_as_that_and_the_rest_goes_on(run: Run, unit: str) -> None:
    result = run(
        """
        import pytest

        pytestmark = pytest.mark.sandbox(memory="128M")

        def test_before(): pass
        def test_takes(): b"x" * (1 << 29)
        def test_after(): pass
        """,
        f"--sandbox={unit}",
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["the test's process was killed by the kernel, out of memory, without a report"])
