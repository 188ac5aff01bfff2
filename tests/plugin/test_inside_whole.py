"""What a whole suite inside brings home, writes through, and is told that it has left."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.needs("overlay-on-host")

MODULE = """
import sys

def sign(number):
    if number > 0:
        return 1
    elif number < 0:
        return -1
    for _ in range(number):
        pass
    return 0

def never():
    return None

if __name__ == "__main__":
    sign(int(sys.argv[1]))
"""
COVERED = """
import os, subprocess, sys
import covered

def test_positive(): assert covered.sign(5) == 1
def test_zero(): assert covered.sign(0) == 0
def test_child(): subprocess.run([sys.executable, "covered.py", "-9"], check=True)
def test_fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
"""
SETTINGS = "[run]\nbranch = true\nparallel = true\npatch = subprocess\ninclude = */covered.py\n"


def coverage_of(pytester: pytest.Pytester, *options: str) -> Any:
    """Run the suite under coverage, and return what was measured of the module."""
    python = (sys.executable, "-m", "coverage")
    for argv in (
        ("run", "-m", "pytest", "-p", "no:cacheprovider", *options),
        ("combine",),
        ("json", "-o", "told.json"),
    ):
        assert pytester.run(*python, *argv).ret == 0
    (files,) = json.loads(Path("told.json").read_text())["files"].values()
    return {name: files[name] for name in ("executed_lines", "missing_lines", "executed_branches", "missing_branches")}


@pytest.mark.parametrize("options", [("--sandbox",), ("--sandbox=module",)], ids=["test", "module"])
@pytest.mark.usefixtures("runs")
def test_coverage_is_that_of_a_plain_run(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    Path(".coveragerc").write_text(SETTINGS)
    pytester.makepyfile(covered=MODULE, test_covered=COVERED)
    plain = coverage_of(pytester)
    assert plain["executed_branches"]
    assert coverage_of(pytester, *options) == plain


def test_what_is_named_is_written_through_and_the_rest_is_not(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsandbox_persist = reports/ deep/er/ one.txt")
    Path("one.txt").write_text("before")
    result = run(
        """
        from pathlib import Path

        def test_first():
            for path in ("reports/a", "deep/er/b", "one.txt", "gone"):
                Path(path).write_text("inside")

        def test_second():
            assert Path("reports/a").read_text() == Path("one.txt").read_text() == "inside"
            assert not Path("gone").exists()
        """,
        "--sandbox",
    )
    result.assert_outcomes(passed=2)
    assert [Path(path).read_text() for path in ("reports/a", "deep/er/b", "one.txt")] == ["inside"] * 3
    assert not Path("gone").exists()


def test_hypothesis_remembers_what_has_failed(run: Run) -> None:
    suite = """
        from pathlib import Path
        from hypothesis import given, settings, strategies as st

        # Where it finds itself in CI, it remembers nothing.
        settings.load_profile("default")

        @given(st.integers())
        def test_small(number):
            Path("seen").touch()
            assert number < 1000
        """
    for _ in range(2):
        run(suite, "--sandbox").assert_outcomes(failed=1)
        assert list(Path(".hypothesis/examples").iterdir())
    assert not Path("seen").exists()


@pytest.mark.parametrize("path", ["/etc", "..", ".", "../other", "reports/../.."])
def test_what_is_outside_of_the_project_cannot_be_written_through(
    run: Run, pytester: pytest.Pytester, path: str
) -> None:
    pytester.makeini(f"[pytest]\nsandbox_persist = {path}")
    result = run("def test(): pass", "--sandbox")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*sandbox_persist has '{path}', which is not below the project's directory, *"])


def test_the_ini_file_gives_the_hosts_network(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsandbox_network = host")
    result = run(
        f"""
        import os, pytest

        def test_ini():
            assert os.readlink("/proc/self/ns/net") == {Path("/proc/self/ns/net").readlink().as_posix()!r}

        @pytest.mark.sandbox(network="none")
        def test_marker():
            assert os.readlink("/proc/self/ns/net") != {Path("/proc/self/ns/net").readlink().as_posix()!r}
        """,
        "--sandbox",
    )
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("unit", ["test", "module"])
def test_a_test_that_takes_too_long_shows_where_it_is(run: Run, pytester: pytest.Pytester, unit: str) -> None:
    pytester.makeini("[pytest]\nfaulthandler_timeout = 0.2")
    result = run(
        """
        import signal, pytest

        def test_short():
            pass

        def test_waits():
            # Longer than the dump of the stacks takes, which is what is looked for.
            signal.sigtimedwait([signal.SIGUSR1], 1)

        def test_next():
            pass
        """,
        f"--sandbox={unit}",
    )
    result.assert_outcomes(passed=3)
    result.stderr.fnmatch_lines(["*Timeout (0:00:00*", "*in test_waits*"])


LEAVING = """
import os, pathlib, socket, subprocess, sys
import pytest

def test_nothing(tmp_path):
    (tmp_path / "file").touch()
    subprocess.run(["true"], check=True)

def test_file():
    pathlib.Path("/etc/left").touch()

def test_process():
    process = subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    process.stdout.readline()
    kept.append(process)

def test_port():
    kept.append(socket.create_server(("127.0.0.1", 8123)))

@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 8124)):
        yield

def test_fixture(server):
    pass

kept = []
"""
LEFT = [
    "*::test_file: left /etc/left added*",
    "*::test_process: left process *: * -c print(1, flush=True); input()*",
    "*::test_port: left somebody who listens at 127.0.0.1:8123/tcp*",
]


def test_what_is_left_is_told(run: Run) -> None:
    result = run(LEAVING, "--sandbox", "--sandbox-report-leaks")
    result.assert_outcomes(passed=5)
    for line in LEFT:
        result.stdout.fnmatch_lines([line])
    assert result.stdout.str().count(": left ") == len(LEFT)


def test_it_is_an_error_where_the_user_says_so(run: Run) -> None:
    result = run(LEAVING, "--sandbox", "--sandbox-report-leaks=error")
    result.assert_outcomes(passed=5, errors=3)


def test_of_a_wider_unit_each_is_told_with_the_test_that_has_left_it(run: Run) -> None:
    result = run(LEAVING, "--sandbox=module", "--sandbox-report-leaks=error")
    result.assert_outcomes(passed=5, errors=1)
    result.stdout.fnmatch_lines(
        [
            "left /etc/left added, by *::test_file",
            "left process *, by *::test_process",
            "left somebody who listens at 127.0.0.1:8123/tcp, by *::test_port",
        ]
    )


def test_nothing_is_looked_for_where_nobody_asks(run: Run) -> None:
    result = run(LEAVING, "--sandbox")
    result.assert_outcomes(passed=5)
    result.stdout.no_fnmatch_line("*left*by*")
    result.stdout.no_fnmatch_line("*left behind*")


@pytest.mark.parametrize("words", ["network='host'", "mounts=[Mount(source='/tmp', target='/mnt', read_only=False)]"])
def test_one_whose_end_is_waited_for_ends(run: Run, words: str) -> None:
    result = run(
        f"""
        import subprocess, pytest
        from pytest_sandbox import Mount

        @pytest.mark.sandbox({words})
        def test_leaves():
            subprocess.Popen(["sleep", "1000"])
        """
    )
    result.assert_outcomes(passed=1)
