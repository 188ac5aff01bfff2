"""A test's body inside its sandbox, seen as a user of pytest sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("overlay-on-host")

SUITE = """
import os, pathlib, signal, warnings
import pytest

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def machine():
    return os.uname().nodename


def test_passes(machine):
    assert machine == "sandbox"
    pathlib.Path("/etc/pytest-sandbox-canary").write_text("inside")


def test_fails():
    print("said by the body")
    left, right = [1, 2], [1, 3]
    assert left == right


def test_skips():
    pytest.skip("for a reason")


@pytest.mark.xfail(raises=ZeroDivisionError)
def test_fails_as_expected():
    1 / 0


@pytest.mark.xfail(raises=KeyError)
def test_fails_otherwise():
    1 / 0


def test_ends_at_once():
    os._exit(3)


def test_is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def test_goes_on(capsys, record_property):
    record_property("colour", "blue")
    print("heard")
    assert capsys.readouterr().out == "heard\\n"
    warnings.warn("mind the gap", UserWarning, stacklevel=1)


@pytest.fixture
def broken():
    raise RuntimeError("broken fixture")


def test_has_a_broken_fixture(broken):
    pass


@pytest.mark.sandbox(inside=False)
def test_stays_outside(machine):
    assert machine != "sandbox"
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.Pytester:
    monkeypatch.setenv("PYTEST_SANDBOX_HOME", str(tmp_path / "store"))
    pytester.makepyfile(SUITE)
    return pytester


@pytest.mark.parametrize("options", [(), ("-n", "2"), ("-s",)], ids=["plain", "distributed", "uncaptured"])
def test_outcomes_are_those_of_a_plain_run(suite: pytest.Pytester, options: tuple[str, ...], tmp_path: Path) -> None:
    result = suite.runpytest_subprocess("--junitxml=junit.xml", "-o", "junit_family=xunit1", *options)
    result.assert_outcomes(passed=3, failed=4, skipped=1, xfailed=1, errors=1, warnings=1)
    result.stdout.fnmatch_lines(["*mind the gap*"])
    result.stdout.fnmatch_lines_random(
        [
            "*assert [[]1, 2] == [[]1, 3]*",
            "*the test's process ended with exit status 3*",
            "*the test's process was killed by SIGKILL*",
            "*RuntimeError: broken fixture*",
        ]
    )
    assert 'name="colour" value="blue"' in (suite.path / "junit.xml").read_text()
    assert list((tmp_path / "store" / "runs").iterdir()) == []


def test_what_the_body_printed_is_shown_when_it_fails(suite: pytest.Pytester) -> None:
    result = suite.runpytest_subprocess("-k", "test_fails and not as_expected")
    result.stdout.fnmatch_lines(["*Captured stdout call*", "said by the body"])


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--fixtures"])
def test_nothing_is_started_where_nothing_runs(suite: pytest.Pytester, option: str, tmp_path: Path) -> None:
    suite.runpytest_subprocess(option)
    assert not (tmp_path / "store").exists()


def test_an_unmarked_suite_runs_inside_when_asked(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        "import os\n\ndef test_alone():\n    assert os.getpid() < 100 and os.uname().nodename == 'sandbox'\n"
    )
    suite.runpytest_subprocess("--sandbox").assert_outcomes(passed=1)


def test_the_plugin_loads_by_name_where_none_is_loaded_by_itself(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    suite.runpytest_subprocess("-p", "pytest_sandbox.plugin", "-k", "test_passes").assert_outcomes(
        passed=1, deselected=9
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("imagee=None", "*a sandbox takes no argument 'imagee'*"),
        ("image='debian'", "*image='debian' is no Image*"),
        ("memory=-1", "*-1 is no size*"),
        ("pids=0", "*pids=0 is not more than 0*"),
        ("workdir='here'", "*workdir='here' is not absolute*"),
    ],
)
def test_a_wrong_marker_is_told_before_anything_runs(suite: pytest.Pytester, words: str, said: str) -> None:
    suite.makepyfile(f"import pytest\n\n@pytest.mark.sandbox({words})\ndef test_one():\n    pass\n")
    result = suite.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert "Traceback" not in result.stderr.str()


def test_a_failed_tests_sandbox_is_shown_and_kept(suite: pytest.Pytester, tmp_path: Path) -> None:
    suite.makepyfile(
        """
        import pytest
        from pytest_sandbox import Changes

        @pytest.mark.sandbox
        def test_drives(sandbox):
            sandbox.run("echo kept > /etc/pytest-sandbox-kept; echo said")
            assert sandbox.changes() == Changes(added=["/etc/other"])
        """
    )
    result = suite.runpytest_subprocess("--sandbox-keep=failed")
    result.stdout.fnmatch_lines(
        ["*the changes differ*", "*/etc/pytest-sandbox-kept*", "*Captured log sandbox:1 call*", "said"]
    )
    (kept,) = (path for path in (tmp_path / "store" / "kept").iterdir() if path.is_dir())
    found = list(kept.glob("upper*/**/pytest-sandbox-kept"))
    assert [path.read_text() for path in found] == ["kept\n"]


def test_one_wrong_marker_never_lets_another_body_run_on_the_host(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import os, pytest

        @pytest.mark.sandbox
        def test_right():
            assert os.uname().nodename == "sandbox"

        @pytest.mark.sandbox(memroy=1)
        def test_wrong():
            pass
        """
    )
    result = suite.runpytest_subprocess("-n", "2")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*a sandbox takes no argument 'memroy'*", "*did you mean memory?*"])


FIDELITY = """
import warnings
import pytest

pytestmark = pytest.mark.sandbox


class Two(Exception):
    def __init__(self, left, right):
        super().__init__(left)


def test_raises_what_cannot_be_made_again():
    raise Two("one", "two")


def test_keeps_a_property_that_cannot_travel(record_property):
    record_property("function", lambda: 1)


def test_warns_as_nobody_else():
    class Own(DeprecationWarning):
        pass

    warnings.warn("mine", Own, stacklevel=1)


def test_hears_its_own_warnings(recwarn):
    warnings.warn("hi", UserWarning, stacklevel=1)
    assert len(recwarn) == 1
"""


@pytest.mark.parametrize("where", ["here", "inside"])
def test_what_cannot_travel_is_told_all_the_same(suite: pytest.Pytester, where: str) -> None:
    suite.makepyfile(FIDELITY.replace("pytest.mark.sandbox", f"pytest.mark.sandbox(inside={where == 'inside'})"))
    result = suite.runpytest_subprocess("-o", "junit_family=xunit1", "--junitxml=junit.xml")
    result.assert_outcomes(passed=3, failed=1, warnings=1)
    result.stdout.fnmatch_lines(["E *Two: one", "*mine*"])
    assert "inside.py" not in result.stdout.str()


@pytest.mark.parametrize(
    ("statement", "code"),
    [("pytest.exit('enough', 7)", 7), ("raise KeyboardInterrupt", pytest.ExitCode.INTERRUPTED)],
)
def test_a_body_that_ends_the_run_ends_it(suite: pytest.Pytester, statement: str, code: int) -> None:
    suite.makepyfile(
        f"import pytest\n\n@pytest.mark.sandbox\ndef test_ends():\n    {statement}\n\ndef test_never_runs():\n    pass\n"
    )
    result = suite.runpytest_subprocess()
    assert result.ret == code
    assert "passed" not in result.stdout.str()
    assert result.stdout.str().count("short test summary") <= 1


SUBTESTS = """
import unittest
import pytest

pytestmark = pytest.mark.sandbox(inside=INSIDE)


class TestUnits(unittest.TestCase):
    def test_units(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertEqual(number, 1)
"""


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest has subtests from 9 on")
@pytest.mark.parametrize("inside", [False, True])
def test_every_subtest_is_reported(suite: pytest.Pytester, inside: bool) -> None:
    suite.makepyfile(SUBTESTS.replace("INSIDE", str(inside)))
    result = suite.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*SUBFAILED*number=0*", "*SUBFAILED*number=2*"])


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest has subtests from 9 on")
@pytest.mark.parametrize("inside", [False, True])
def test_a_test_with_failed_subtests_fails(suite: pytest.Pytester, inside: bool) -> None:
    suite.makepyfile(
        f"""
        import pytest

        @pytest.mark.sandbox(inside={inside})
        def test_subtests(subtests):
            for number in range(3):
                with subtests.test(number=number):
                    assert number == 1
        """
    )
    result = suite.runpytest_subprocess()
    result.stdout.fnmatch_lines(["test_a_test_with_failed_subtests_fails.py uuF*", "*contains 2 failed subtests*"])
    result.stdout.fnmatch_lines(["*SUBFAILED(number=0)*", "*SUBFAILED(number=2)*"])


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["plain", "distributed"])
def test_only_the_process_outside_reports(suite: pytest.Pytester, options: tuple[str, ...]) -> None:
    # With a conftest in another directory, pytest makes the hooks of each item anew.
    for name in ("one", "two"):
        suite.mkdir(name).joinpath("conftest.py").write_text("")
        body = f"import warnings\n\ndef test_{name}():\n    warnings.warn('of {name}', stacklevel=1)\n"
        (suite.path / name / f"test_{name}.py").write_text(body)
    result = suite.runpytest_subprocess("--sandbox", "one", "two", *options)
    result.assert_outcomes(passed=2, warnings=2)


@pytest.mark.needs("networks")
def test_a_test_inside_can_have_a_network(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import socket
        import pytest
        from pytest_sandbox import Network

        pytestmark = pytest.mark.sandbox(network=Network(allow=["api.nowhere.invalid:80"]))

        @pytest.mark.parametrize("turn", range(3))
        def test_inside(turn):
            assert socket.gethostbyname("api.nowhere.invalid") == "10.77.0.254"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("api.nowhere.invalid", 81))
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)
