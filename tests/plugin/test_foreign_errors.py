"""Images in which pytest cannot run, and tests that are not to be found there, as the user is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_bad_input import assert_shows_no_internals

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.needs("overlayfs")

TEST = """
    import pytest

    @pytest.mark.sandbox({words})
    def test_there():
        raise RuntimeError
    """
# In the place of what is at work in the image, for all that it tells of itself.
OLD_PYTHON = "import sys\nsys.version_info = (3, 8, 10, 'final', 0)\n"
OLD_PYTEST = "__version__ = '6.2.5'\n"
NO_PYTEST = "raise ImportError('no module named pytest', name='pytest')\n"
OTHER = "import os\nos.write(0, (8).to_bytes(8, 'big') + b'\\xff words!')\nos._exit(0)\n"


def fails_in(run: Run, image: Path, words: str = "", *options: str) -> pytest.RunResult:
    result = run(TEST.format(words=words), f"--sandbox-image={image}", *options)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ERROR at setup of test_there*"])
    assert_shows_no_internals(result)
    return result


def test_an_image_without_python_says_what_to_add(run: Run, empty_image: Path) -> None:
    fails_in(run, empty_image).stdout.fnmatch_lines(
        [
            f"there is no Python in {empty_image}, which the test is to run in",
            '  hint: add it with pytest, as by .apt("python3-pytest"), or name it by python= or sandbox_python',
        ]
    )


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("python='python2.5'", ()),
        ("python='python2.5'", ("-o", "sandbox_python=python3")),
        ("", ("-o", "sandbox_python=python2.5")),
    ],
    ids=["word", "both", "key"],
)
def test_a_named_python_that_is_not_there_is_named(run: Run, image: Path, words: str, options: tuple[str, ...]) -> None:
    fails_in(run, image, words, *options).stdout.fnmatch_lines(
        [f"there is no python2.5 in {image}, which the test is to run in", "  hint: see python= and sandbox_python"]
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "sitecustomize",
            OLD_PYTHON,
            [
                "/usr/bin/python3 of *, Python 3.8.10, is too old for a test inside, which needs 3.9",
                "  hint: name another one by python= or sandbox_python",
            ],
        ),
        (
            "pytest",
            NO_PYTEST,
            [
                "/usr/bin/python3 of *, Python *, has no pytest: no module named pytest",
                '  hint: add it to the image, by .pip("pytest") or .apt("python3-pytest")',
            ],
        ),
        (
            "pytest",
            OLD_PYTEST,
            [
                "/usr/bin/python3 of *, Python *, has pytest 6.2.5, and a test inside needs 7 or later",
                '  hint: add it to the image, by .pip("pytest>=7")',
            ],
        ),
        ("pytest", OTHER, ["what is to be Python in * told something else than it should"]),
        ("pytest", "raise SystemExit('no more')\n", ["pytest did not start in *: the test's process ended with exit status 1", "no more"]),
    ],
    ids=["old-python", "no-pytest", "old-pytest", "other", "end"],
)  # fmt: skip
def test_a_python_that_is_not_enough_says_why(
    run: Run, pytester: pytest.Pytester, image: Path, name: str, content: str, said: list[str]
) -> None:
    (pytester.path / "first").mkdir()
    (pytester.path / f"first/{name}.py").write_text(content)
    words = f"env={{'PYTHONPATH': {str(pytester.path / 'first')!r}}}"
    fails_in(run, image, words).stdout.fnmatch_lines(said)


def test_all_of_a_unit_are_told_alike(run: Run, image: Path, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import filelock\n")
    result = run("def test_a(): pass\ndef test_b(): pass", "--sandbox=module", f"--sandbox-image={image}")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*ERROR at setup of test_a*", "pytest cannot start in*"])
    result.stdout.fnmatch_lines(["*ERROR at setup of test_b*", "pytest cannot start in*"])


def test_a_module_that_the_image_lacks_is_named_and_the_rest_runs(
    run: Run, image: Path, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        test_a="import filelock\ndef test_lacks(): pass\n",
        test_b="def test_passes(): pass\n",
        test_c="import pytest\npytest.importorskip('filelock')\ndef test_skipped(): pass\n",
        test_d="import sys\nif 'filelock' in sys.modules:\n    def test_hidden(): pass\ndef test_shown(): pass\n",
    )
    result = run("", "--sandbox=session", f"--sandbox-image={image}", "-rs", *(f"test_{name}.py" for name in "abcd"))
    result.assert_outcomes(passed=2, errors=2, skipped=1)
    result.stdout.fnmatch_lines(
        [
            f"this test is not to be found in {image}, where pytest says:",
            "*ImportError while importing test module*",
            "E *ModuleNotFoundError: No module named 'filelock'",
            f"this test is not to be found in {image}, where pytest says:",
            "there is no such test",
            "SKIPPED [[]1[]] test_c.py:3: could not import 'filelock'*",
        ]
    )
    assert "pytest_sandbox/" not in result.stdout.str()


@pytest.mark.parametrize(
    ("conftest", "said"),
    [
        ("import filelock\n", ["ModuleNotFoundError: No module named 'filelock' (from *conftest.py)"]),
        (
            "import os, pytest\ndef pytest_configure():\n    if os.path.exists('/etc/image'): raise pytest.UsageError('not here')\n",
            ["not here"],
        ),
        (
            "import os\ndef pytest_sessionstart():\n    if os.path.exists('/etc/image'):\n        1 / 0\n",
            ["*ZeroDivisionError: division by zero*"],
        ),
    ],
    ids=["import", "usage", "fault"],
)
def test_what_keeps_pytest_from_starting_there_is_told(
    run: Run, image: Path, pytester: pytest.Pytester, conftest: str, said: list[str]
) -> None:
    pytester.makeconftest(conftest)
    result = run(TEST.format(words=""), f"--sandbox-image={image}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"pytest cannot start in {image}, where it says:", *said])


def test_what_is_no_report_is_taken_for_none(run: Run, image: Path) -> None:
    result = run(
        """
        import json, os, pickle

        def say(what):
            sockets = [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
                       and os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")]
            os.write(sockets[0], len(what).to_bytes(8, "big") + what)

        def test_pickle():
            say(pickle.dumps(print))

        def test_other_report():
            report = {"nodeid": "other", "location": ["other", 0, "other"], "keywords": {}, "outcome": "passed",
                       "longrepr": None, "when": "call", "sections": [], "user_properties": [], "$report_type": "TestReport"}
            ends = {"raised": None, "shouldstop": False, "shouldfail": False}
            say(json.dumps({"reports": [report], "warnings": [], **ends}).encode())

        def test_after():
            pass
        """,
        *("--sandbox", f"--sandbox-image={image}"),
    )
    result.assert_outcomes(passed=1, failed=2)
    said = "what the test's process told cannot be read: "
    result.stdout.fnmatch_lines([f"{said}*", f"{said}ValueError: no report of *::test_other_report"])
    assert_shows_no_internals(result)


def test_an_image_that_has_this_plugin_starts_no_sandbox_in_the_sandbox(
    run: Run, pytester: pytest.Pytester, image: Path
) -> None:
    installed = pytester.path / "first/pytest_sandbox-0.1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: pytest-sandbox\nVersion: 0.1\n")
    (installed / "entry_points.txt").write_text("[pytest11]\nsandbox = pytest_sandbox.plugin\n")
    words = f"env={{'PYTHONPATH': {str(pytester.path / 'first')!r}}}"
    suite = TEST.format(words=words).replace("raise RuntimeError", "pass")
    run(suite, f"--sandbox-image={image}").assert_outcomes(passed=1)


def test_a_python_for_this_machine_is_a_usage_error(run: Run) -> None:
    result = run(TEST.format(words="python='python3'"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*python='python3' is for another image: *", "*hint: leave it out, or say which image="]
    )


def test_the_root_directory_is_no_project(run: Run, image: Path) -> None:
    result = run(TEST.format(words=""), f"--sandbox-image={image}", "--rootdir=/")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*the project's directory is /, which would hide the image", "*hint: *--rootdir"])
