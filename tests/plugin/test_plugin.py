"""The plugin as its users meet it: one suite a test, run by a pytest of its own, with nothing left in the store."""

from __future__ import annotations

from pathlib import Path
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


def test_a_body_does_not_run_in_an_archive(run: Run) -> None:
    result = run(
        """
        import pytest
        from pytest_sandbox import Image

        @pytest.mark.sandbox(Image.archive("/srv/root.tar"))
        def test_inside():
            pass
        """
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*a copy of this machine only, not in /srv/root.tar*", "*ask for the sandbox fixture*"]
    )


@needs_inside
def test_an_image_that_is_missing_fails_the_test_in_its_own_words(run: Run) -> None:
    result = run("def test_driven(sandbox):\n    pass\n", "--sandbox-image", "nowhere.tar")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*nowhere.tar*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_sandbox_runtime*")


@needs_inside
def test_an_image_that_is_no_tar_fails_the_test_in_its_own_words(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "words.tar").write_text("these are only words\n" * 100)
    result = run("def test_driven(sandbox):\n    pass\n", "--sandbox-image", "words.tar")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*words.tar*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_sandbox_runtime*")


@needs_inside
def test_an_unmarked_suite_runs_inside_when_asked_but_for_who_refuses(run: Run) -> None:
    result = run(
        """
        import os, unittest, pytest

        def test_inside():
            assert os.uname().nodename == "sandbox"

        class TestGroup:
            def test_inside(self):
                assert os.uname().nodename == "sandbox"

        class TestOld(unittest.TestCase):
            def test_inside(self):
                self.assertEqual(os.uname().nodename, "sandbox")

        @pytest.mark.sandbox(inside=False)
        def test_outside():
            assert os.uname().nodename != "sandbox"

        def test_driven(sandbox):
            assert os.uname().nodename != "sandbox"
        """,
        "--sandbox",
    )
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["sandbox: every test inside, image host"])


def test_a_test_that_runs_inside_drives_no_others(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.fixture
        def beside(sandbox_factory):
            return sandbox_factory()

        @pytest.mark.sandbox(inside=True)
        def test_inside(beside):
            pass
        """
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*cannot drive sandboxes with sandbox_factory*", "*hint: leave out inside=True*"])


@needs_inside
def test_the_nearest_marker_wins_and_a_hook_has_the_last_word(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import dataclasses

        def pytest_sandbox_spec(item, spec):
            if item.name == "test_changed":
                return dataclasses.replace(spec, hostname="conftest")
        """
    )
    result = run(
        """
        import pytest

        pytestmark = pytest.mark.sandbox(hostname="module", env={"COLOUR": "blue"})

        def test_module(sandbox):
            assert sandbox.run("echo $COLOUR on $(hostname)").stdout == "blue on module\\n"

        @pytest.mark.sandbox(hostname="function")
        def test_function(sandbox):
            assert sandbox.run("echo $COLOUR on $(hostname)").stdout == "blue on function\\n"

        def test_changed(sandbox):
            assert sandbox.run("hostname").stdout == "conftest\\n"
        """
    )
    result.assert_outcomes(passed=3)


@needs_inside
def test_a_failed_driven_test_shows_what_its_sandbox_ran(run: Run) -> None:
    result = run(
        """
        def test_fails(sandbox):
            sandbox.run("echo from within")
            assert False

        def test_passes(sandbox):
            sandbox.run("echo unheard")
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Captured log sandbox:*", "*echo from within*"])
    result.stdout.no_fnmatch_line("*unheard*")


@needs_inside
def test_a_sandbox_used_after_its_end_says_so(run: Run) -> None:
    result = run(
        """
        import pytest
        from pytest_sandbox import Sandbox, SandboxError

        def test_closed(sandbox):
            sandbox.close()
            sandbox.close()
            with pytest.raises(SandboxError, match="closed"):
                sandbox.run("true")
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(("missing", "outcome"), [("fail", "errors"), ("skip", "skipped")])
def test_a_test_whose_sandbox_cannot_be_made_is_what_the_user_chose(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str, outcome: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYTEST_SANDBOX_HOME", str(tmp_path / "file" / "store"))
    result = run("def test_driven(sandbox):\n    pass\n", "-rs", "-o", f"sandbox_missing={missing}")
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*cannot write to the store */file/store: *"])
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize("key", ["sandbox_missing", "sandbox_limits", "sandbox_retention_policy"])
def test_a_wrong_value_of_an_ini_key_is_a_usage_error(run: Run, key: str) -> None:
    result = run("def test_plain():\n    pass\n", "-o", f"{key}=perhaps")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {key} = 'perhaps' is none of *"])
    result.stderr.no_fnmatch_line("*Traceback*")


@needs_inside
def test_the_slowest_starts_are_listed_where_asked(run: Run) -> None:
    suite = "def test_one(sandbox):\n    pass\n\ndef test_two(sandbox):\n    pass\n"
    result = run(suite, "--sandbox-durations=1")
    result.stdout.fnmatch_lines(["*slowest 1 sandboxes to start*", "* ms  *::test_*(the host)"])
    assert result.stdout.str().count("(the host)") == 1
    assert run(suite, "--sandbox-durations=0").stdout.str().count("(the host)") == 2


@needs_inside
def test_the_doctor_finds_this_host_well(run: Run, runs: Path) -> None:
    result = run("def test_plain():\n    raise RuntimeError\n", "--sandbox-doctor")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*overlay-on-host*"])
    result.stdout.no_fnmatch_line("*test_plain*")
    assert not runs.exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "sandbox: image host"),
        (("--sandbox",), "sandbox: every test inside, image host"),
        (("--sandbox-image=root.tar",), "sandbox: image */root.tar"),
        (("-o", "sandbox_limits=best-effort"), "sandbox: image host, limits *enforced*"),
    ],
    ids=["default", "everything", "image", "best-effort"],
)
def test_the_header_says_what_sandboxes_start_as(run: Run, options: tuple[str, ...], line: str) -> None:
    run("def test_plain():\n    pass\n", "--collect-only", *options).stdout.fnmatch_lines([line])
