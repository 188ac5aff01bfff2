"""Tests inside an image that is another system: pytest runs in its Python, and the reports are those of a plain run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.plugin.sameness import body, results
from tests.plugin.test_units import CONFTEST, MEETING, MET, SUITE

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.needs("overlayfs")


@pytest.fixture
def run_there(run: Run, image: Path) -> Run:
    """Run every test of a suite in the image."""
    return lambda suite, *options: run(suite, "--sandbox", f"--sandbox-image={image}", *options)


def test_a_marked_body_runs_in_the_image_and_others_do_not(run: Run, image: Path, pytester: pytest.Pytester) -> None:
    result = run(
        f"""
        import os, pytest, sys
        from pytest_sandbox import Image

        @pytest.mark.sandbox(Image.archive({str(image)!r}), env={{"COLOUR": "blue"}})
        def test_there():
            assert open("/etc/image").read() == "another system\\n"
            assert os.uname().nodename == "sandbox"
            assert (os.environ["COLOUR"], "HOME" in os.environ, "PYTEST_ADDOPTS" in os.environ) == ("blue", True, False)
            assert os.getcwd() == {str(pytester.path)!r}
            open("made", "w").close()
            assert "filelock" not in sys.modules

        @pytest.mark.sandbox
        def test_inside():
            assert not os.path.exists("/etc/image")

        def test_outside():
            assert not os.path.exists("made")
        """
    )
    result.assert_outcomes(passed=3)
    assert not (pytester.path / "made").exists()


def test_the_output_is_that_of_a_plain_run(run: Run, image: Path) -> None:
    # It has no shell.
    suite = SUITE.replace('os.system("echo from a child")', 'os.write(1, b"from a child\\n")')
    options = ("-rA", "--doctest-modules", "-v", "-W", "default")
    plain = run(suite, *options, "--junitxml=plain.xml")
    there = run(suite, *options, "--junitxml=there.xml", "--sandbox=module", f"--sandbox-image={image}")
    assert plain.parseoutcomes()["passed"] > 5
    assert told(there) == told(plain)
    assert results("there.xml") == results("plain.xml")


def told(result: pytest.RunResult) -> list[str]:
    """Return what was printed, but for the names of reports and, with it, what pytest quotes twice on its way."""
    lines = [re.sub("_{9,}", "_", re.sub("number='(.)'", r"number=\1", line)) for line in body(result)]
    return [line for line in lines if ".xml" not in line]


def test_distributed_tests_run_there_too(run: Run, image: Path) -> None:
    suite = """
        import os, pytest

        @pytest.mark.parametrize("number", range(4))
        def test_numbers(number):
            assert os.path.exists("/etc/image") and number != 2
        """
    result = run(suite, "--sandbox", f"--sandbox-image={image}", "-n", "2")
    result.assert_outcomes(passed=3, failed=1)


@pytest.mark.parametrize("unit", ["test", "module", "session"])
def test_a_unit_has_one_machine_and_one_set_of_wider_fixtures(
    run: Run, pytester: pytest.Pytester, image: Path, unit: str
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_a=MEETING.format(name="a"), test_b=MEETING.format(name="b"))
    result = run("", f"--sandbox={unit}", f"--sandbox-image={image}", "-rP", "test_a.py", "test_b.py")
    result.assert_outcomes(passed=4)
    said = result.stdout.str()
    assert re.findall(r"^met (.*)", said, re.MULTILINE) == [str(names) for names in MET[unit]]
    times = {"test": (4, 4), "module": (2, 2), "session": (2, 1)}[unit]
    assert (said.count("module down"), said.count("session down")) == times


def test_the_options_of_the_run_count_there(run_there: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nconsole_output_style = count\naddopts = --flavour=vanilla -n 0\nxfail_strict = true\n")
    pytester.makeconftest(
        """
        def pytest_addoption(parser):
            parser.addoption("--flavour")
        """
    )
    pytester.makepyfile(beside="import pytest\n@pytest.fixture\ndef of_plugin(): return 7\n")
    result = run_there(
        """
        import logging, pytest, warnings

        def test_options(pytestconfig, of_plugin):
            assert pytestconfig.getoption("flavour") == "vanilla"
            assert pytestconfig.getini("console_output_style") == "progress"
            assert (pytestconfig.option.verbose, of_plugin) == (2, 7)

        def test_warns():
            warnings.warn("beware")

        def test_long():
            assert [1] * 99 == [2] * 99

        @pytest.mark.xfail
        def test_strict():
            pass

        def test_deselected():
            raise RuntimeError
        """,
        *("-vv", "-p", "beside", "-W", "error", "--tb=short", "-k", "not deselected"),
        *("-o", "console_output_style=progress"),
    )
    result.assert_outcomes(passed=1, failed=3, deselected=1)
    result.stdout.fnmatch_lines(["E*UserWarning: beware", "E *At index 0 diff: 1 != 2", "*XPASS(strict)*"])
    result.stdout.no_fnmatch_line("*def test_warns*")


def test_a_run_stops_where_a_plain_one_does(run: Run, image: Path) -> None:
    suite = "import pytest\n" + "".join(f"def test_{n}(): assert {n} not in (1, 3)\n" for n in range(6))
    options = ("--sandbox=session", f"--sandbox-image={image}")
    assert run(suite, *options, "--maxfail=2").parseoutcomes() == {"passed": 2, "failed": 2}
    ended = run(suite + "def test_exit(): pytest.exit('enough', 5)\ndef test_unreached(): pass\n", *options)
    ended.stdout.fnmatch_lines(["*2 failed, 4 passed*", "*Exit: enough*"])
    assert ended.ret == 5


def test_what_is_printed_goes_to_the_terminal_once_without_capture(run_there: Run) -> None:
    result = run_there("def test_prints():\n    print('said aloud')\n", "-s")
    result.assert_outcomes(passed=1)
    assert result.stdout.str().count("said aloud") == 1


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os._exit(3)", "ended with exit status 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
        ("signal.pause() if os.fork() == 0 else os._exit(3)", "ended with exit status 3"),
    ],
    ids=["status", "fault", "child"],
)
def test_one_that_dies_is_one_failure_and_the_rest_has_a_machine_of_its_own(
    run: Run, image: Path, end: str, said: str
) -> None:
    result = run(
        f"""{CONFTEST}
import faulthandler, resource, signal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
def test_first(met): assert met("first") == []
def test_dies():
    faulthandler.disable()
    print("last words")
    {end}
def test_next(met): assert met("next") == []
""",
        *("--sandbox=module", f"--sandbox-image={image}"),
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [f"the test's process {said}, without a report", "*Captured stdout call*", "last words"]
    )


def test_a_body_that_outlasts_its_timeout_is_one_failure(run: Run, image: Path) -> None:
    result = run(
        f"""
        import signal, pytest
        from pytest_sandbox import Image

        @pytest.mark.sandbox(Image.archive({str(image)!r}), timeout=0.2)
        def test_waits():
            signal.pause()

        def test_after():
            pass
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["the test did not end within 0.2 s, and its sandbox was killed"])


def test_what_is_left_kept_and_written_through_is_as_of_other_tests_inside(
    run: Run, pytester: pytest.Pytester, image: Path
) -> None:
    result = run(
        """
        import pathlib

        def test_leaves(tmp_path):
            pathlib.Path("/left").touch()
            (tmp_path / "own").touch()
            pathlib.Path("out/report").touch()
            assert False
        """,
        *("--sandbox", f"--sandbox-image={image}", "--sandbox-report-leaks", "--sandbox-keep=failed"),
        *("-o", "sandbox_persist=out"),
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*kept sandboxes*", "*::test_leaves: pytest-sandbox *shell *", "*left behind*"])
    assert [line for line in result.stdout.lines if ": left " in line][1:] == []
    result.stdout.fnmatch_lines(["*::test_leaves: left /left added"])
    assert (pytester.path / "out/report").exists()


def test_the_project_is_imported_as_outside(
    run_there: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pytester.path / "src").mkdir()
    (pytester.path / "src/product.py").write_text("PRICE = 7\n")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path / "src"), prepend=os.pathsep)
    run_there("import product\ndef test_price(): assert product.PRICE == 7\n").assert_outcomes(passed=1)


@pytest.mark.needs("root", "mmdebstrap")
def test_another_distribution_runs_tests_in_its_own_python(run: Run, debian: Path) -> None:
    result = run(
        f"""
        import sys, pytest
        from pytest_sandbox import Image

        pytestmark = pytest.mark.sandbox(Image.archive({str(debian)!r}))
        OUTSIDE = {sys.version_info[:2]!r}

        def test_python():
            assert sys.version_info[:2] != OUTSIDE
            assert pytest.__version__ != {pytest.__version__!r}

        def test_fails(tmp_path):
            numbers = [1, 2]
            assert numbers == [1, 3]
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E *assert [[]1, 2] == [[]1, 3]", "E *At index 1 diff: 2 != 3"])


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """A root file system of a Debian whose Python is not this one."""
    suite = "trixie" if sys.version_info[:2] != (3, 13) else "bookworm"
    argv = ["mmdebstrap", "--variant=extract", "--include=python3-pytest,base-files", suite, str(tmp_path / "root.tar")]
    subprocess.run(argv, check=True, capture_output=True)
    return tmp_path / "root.tar"
