"""Which machine a test gets, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

needs_inside = pytest.mark.needs("overlay-on-host")


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
    for options in ((), ("-n", "2")):
        assert run(suite, "--sandbox-durations=0", *options).stdout.str().count("(the host)") == 2


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
