"""What starts, what is imported, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

needs_inside = pytest.mark.needs("overlay-on-host")


@needs_inside
def test_two_workers_share_the_controllers_one_run(run: Run, runs: Path) -> None:
    result = run(
        f"""
        import os, pathlib, pytest

        @pytest.mark.sandbox
        @pytest.mark.parametrize("turn", range(4))
        def test_inside(turn):
            pathlib.Path("/etc/turn").write_text(str(turn))
            assert pathlib.Path("/etc/turn").read_text() == str(turn)

        @pytest.mark.parametrize("turn", range(4))
        def test_driven(sandbox, turn):
            assert sandbox.run("echo $$; hostname").stdout.splitlines()[1] == "sandbox"
            assert len(os.listdir({str(runs)!r})) == 1

        def test_fails(sandbox):
            assert os.environ["PYTEST_XDIST_WORKER"] == "nobody"
        """,
        "-n",
        "2",
    )
    result.assert_outcomes(passed=8, failed=1)


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--markers", "--fixtures"])
def test_nothing_is_started_where_no_test_runs(run: Run, runs: Path, option: str) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.sandbox
        def test_inside():
            pass

        def test_driven(sandbox):
            pass
        """,
        option,
    )
    assert result.ret == pytest.ExitCode.OK
    assert not runs.exists()


def test_nothing_is_started_for_a_suite_without_sandboxes(run: Run, runs: Path) -> None:
    run("def test_plain():\n    pass\n").assert_outcomes(passed=1)
    run("def test_plain():\n    pass\n", "-n", "2").assert_outcomes(passed=1)
    assert not runs.exists()


def test_the_plan_of_fixtures_names_the_machine(run: Run) -> None:
    result = run("def test_driven(sandbox):\n    pass\n", "--setup-plan")
    result.stdout.fnmatch_lines(["*SETUP    F sandbox*", "*TEARDOWN F sandbox*"])


def test_the_plugin_can_be_left_out(run: Run, runs: Path) -> None:
    result = run(
        """
        import os, pytest

        @pytest.mark.sandbox
        def test_on_the_host(request):
            assert not request.config.pluginmanager.hasplugin("sandbox")

        def test_driven(sandbox):
            pass
        """,
        "-p",
        "no:sandbox",
    )
    result.assert_outcomes(passed=1, errors=1, warnings=1)
    result.stdout.fnmatch_lines(["*fixture 'sandbox' not found*", "*Unknown pytest.mark.sandbox*"])
    result.stdout.no_fnmatch_line("sandbox: *")
    assert not runs.exists()


def test_a_start_of_pytest_imports_nothing_that_only_sandboxes_need(run: Run) -> None:
    suite = """
        import sys

        def test_modules():
            print("modules:", *sys.modules)
        """
    with_it, without = (
        set(run(suite, "-s", *options).stdout.str().partition("modules:")[2].splitlines()[0].split())
        for options in ((), ("-p", "no:sandbox"))
    )
    modules = {"plugin", "settings", "marks", "fixtures", "reports", "hookspecs", "image_words"}
    assert with_it - without == {"pytest_sandbox", *(f"pytest_sandbox.{name}" for name in modules)}


@needs_inside
def test_the_plugin_is_loaded_by_name_where_none_is_loaded_by_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    suite = """
        import os, pytest

        @pytest.mark.sandbox
        def test_inside():
            assert os.uname().nodename == "sandbox"

        def test_driven(sandbox):
            assert sandbox.run("hostname").stdout == "sandbox\\n"
        """
    run(suite, "-p", "pytest_sandbox.plugin").assert_outcomes(passed=2)
    run(suite).assert_outcomes(failed=1, errors=1, warnings=1)


WRONG = [
    ("memroy='64M'", "*a sandbox takes no argument 'memroy'*did you mean memory[?]*"),
    ("colour='blue'", "*a sandbox takes no argument 'colour'*there are image, network, *"),
    ("image=5", "*image=5 is no Image*Image.archive(*"),
    ("5", "*image=5 is no Image*"),
    ("None, None", "*the sandbox marker takes one argument without a name*"),
    ("memory=-1", "*-1*hint: *"),
    ("memory=1", "*memory=1 is less than the * bytes that init itself needs*leave memory out*"),
    ("memory='much'", "*'much' is no size*"),
    ("cpus=0", "*cpus=0 is not more than 0*leave cpus out*"),
    ("pids=-3", "*pids=-3 is not more than 0*"),
    ("pids=1.5", "*pids=1.5 is no whole number*"),
    ("timeout=-1", "*timeout=-1 is not more than 0*"),
    ("network='moon'", "*network='moon' is none of none, host*"),
    ("hostname='a b'", "*hostname='a b' is no host name*"),
    ("workdir='tmp'", "*workdir='tmp' is not absolute*"),
    ("env={'A=B': 'c'}", "*env has 'A=B': 'c', which no environment can hold*"),
    ("mounts=['/srv']", "*mounts has '/srv', which is neither a Mount nor a Tmpfs*"),
]


def test_wrong_markers_are_one_usage_error_before_anything_starts(run: Run, runs: Path) -> None:
    tests = [
        f"@pytest.mark.sandbox({words})\ndef test_{number}(sandbox):\n    pass\n"
        for number, (words, _) in enumerate(WRONG)
    ]
    result = run("import pytest\n\n" + "\n".join(tests))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    errors = result.stderr.str()
    told = " ".join(errors.split()).split("test_wrong_markers_are_one_usage_error_before_anything_starts.py::")
    assert told[0] == "ERROR: "
    assert len(told) == 1 + len(WRONG)
    for number, (_, said) in enumerate(WRONG):
        pytest.LineMatcher([told[1 + number]]).fnmatch_lines([f"test_{number}: {said}"])
    assert "Traceback" not in errors
    result.stdout.no_fnmatch_line("INTERNALERROR*")
    assert not runs.exists()
