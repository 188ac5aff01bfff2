"""A suite that itself uses the plugin, run inside: each of its tests makes sandboxes in its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.needs("overlay-on-host", "user-namespaces")

NESTING = ("--sandbox", "-p", "pytester", "-o", "sandbox_nesting=true")

SUITE = """
import os
import pytest
from pytest_sandbox_runtime import Engine, SandboxSpec

INNER = '''
import os
import pathlib
import pytest

HERE = pathlib.Path(__file__).with_name("left")

def test_inside():
    assert os.getpid() < 10
    HERE.write_text("by the inner test")

def test_after_it():
    assert not HERE.exists()

@pytest.mark.parametrize("number", range(4))
def test_outside(sandbox, number):
    assert sandbox.run("exit 3").returncode == 3

@pytest.mark.sandbox(memory="64M")
def test_limited(sandbox):
    pass
'''


def check(result):
    result.assert_outcomes(passed=6, errors=1)
    result.stdout.fnmatch_lines(["*memory=67108864 cannot be enforced on this host*"])


@pytest.fixture(autouse=True)
def inner(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makepyfile(INNER)


def test_in_a_process_of_its_own(pytester):
    check(pytester.runpytest_subprocess("--sandbox"))


def test_in_this_process(pytester):
    check(pytester.runpytest_inprocess("--sandbox"))


def test_with_workers(pytester):
    check(pytester.runpytest_subprocess("--sandbox", "-n2"))


def test_an_engine_of_the_tests_own():
    with Engine.open() as engine, engine.create(SandboxSpec(hostname="inner")) as box:
        assert box.run(["uname", "-n"]).stdout == "inner\\n"
    assert os.uname().nodename == "sandbox"
"""


def test_a_suite_that_uses_the_plugin_runs_inside(run: Run) -> None:
    run(SUITE, *NESTING).assert_outcomes(passed=4)


def test_it_does_so_in_workers_too(run: Run) -> None:
    run(SUITE, *NESTING, "-n2", "-k", "engine or process_of").assert_outcomes(passed=2)


def test_without_the_ini_key_the_error_names_it(run: Run) -> None:
    source = "from pytest_sandbox_runtime import Engine\n\ndef test_it():\n    Engine.open()\n"
    result = run(source, "--sandbox")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*give that sandbox nesting=True*sandbox_nesting = true in the ini file*"])


def test_the_marker_has_the_last_word(run: Run) -> None:
    source = """
        import pytest
        from pytest_sandbox_runtime import Engine, EngineError

        @pytest.mark.sandbox(nesting=False)
        def test_it():
            with pytest.raises(EngineError):
                Engine.open()

        @pytest.mark.sandbox
        def test_the_ini_key():
            Engine.open().close()
    """
    run(source, *NESTING[1:]).assert_outcomes(passed=2)


def test_another_word_of_the_ini_key_is_refused(run: Run) -> None:
    result = run("def test_it(): pass", "-o", "sandbox_nesting=maybe")
    result.stderr.fnmatch_lines(["*sandbox_nesting = 'maybe' is none of false, true*"])


def test_the_store_of_the_outer_run_is_out_of_sight(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the project's directory, which tests inside see.
    monkeypatch.setenv("PYTEST_SANDBOX_HOME", str(pytester.path / "store"))
    source = """
        import os
        from pytest_sandbox_runtime import Engine

        def test_it(request):
            store = request.config.rootpath / "store"
            assert not store.exists()
            with Engine.open():
                assert len(os.listdir(store / "runs")) == 1
    """
    run(source, *NESTING).assert_outcomes(passed=1)


@pytest.mark.needs("cgroup-memory")
def test_what_was_found_out_outside_is_found_out_anew(run: Run) -> None:
    source = """
        import pytest
        from pytest_sandbox_runtime.capabilities import probe

        @pytest.mark.sandbox(memory="512M")
        def test_it():
            assert not probe("cgroup-memory").available
    """
    run(source).assert_outcomes(passed=1)
