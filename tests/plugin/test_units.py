"""--sandbox=test, module and session: one machine, and one process, for each; the reports are those of a plain run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.plugin.sameness import body, results

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.needs("overlay-on-host")

UNITS = ["test", "module", "session"]
CONFTEST = """
import os, pathlib, pytest

PLACE = pathlib.Path("/run/pytest-sandbox-units")

@pytest.fixture(scope="session")
def session_pid():
    yield os.getpid()
    print("session down")

@pytest.fixture(scope="module")
def module_pid():
    print("module up")
    yield os.getpid()
    print("module down")

@pytest.fixture
def met():
    '''Which tests have left something on this machine before.'''
    before = sorted(os.listdir(PLACE)) if PLACE.exists() else []
    PLACE.mkdir(exist_ok=True)
    def note(name):
        (PLACE / name).touch()
        return before
    return note
"""
# Which of the tests before it each one meets, in each unit.
MEETING = """
import os

def test_one(met, session_pid, module_pid):
    assert (session_pid, module_pid) == (os.getpid(), os.getpid())
    print("met", met("{name}-one"))

def test_two(met, session_pid, module_pid):
    assert (session_pid, module_pid) == (os.getpid(), os.getpid())
    print("met", met("{name}-two"))
"""
MET: dict[str, list[list[str]]] = {
    "test": [[], [], [], []],
    "module": [[], ["a-one"], [], ["b-one"]],
    "session": [[], ["a-one"], ["a-one", "a-two"], ["a-one", "a-two", "b-one"]],
}


@pytest.mark.parametrize(
    ("unit", "options"), [*((unit, ()) for unit in UNITS), ("module", ("-n", "1"))], ids=[*UNITS, "worker"]
)
def test_a_unit_has_one_machine(run: Run, pytester: pytest.Pytester, unit: str, options: tuple[str, ...]) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_a=MEETING.format(name="a"), test_b=MEETING.format(name="b"))
    result = run("", f"--sandbox={unit}", "-rP", *options, "test_a.py", "test_b.py")
    result.assert_outcomes(passed=4)
    assert re.findall(r"^met (.*)", result.stdout.str(), re.MULTILINE) == [str(names) for names in MET[unit]]
    assert not Path("/run/pytest-sandbox-units").exists()


@pytest.mark.parametrize(("unit", "times"), [("test", (4, 4)), ("module", (2, 2)), ("session", (2, 1))])
def test_wider_fixtures_are_set_up_and_torn_down_once_for_each_unit(
    run: Run, pytester: pytest.Pytester, unit: str, times: tuple[int, int]
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_a=MEETING.format(name="a"), test_b=MEETING.format(name="b"))
    said = run("", f"--sandbox={unit}", "-rP", "test_a.py", "test_b.py").stdout.str()
    assert (said.count("module up"), said.count("module down")) == (times[0], times[0])
    assert said.count("session down") == times[1]


# All that a report can have
SUITE = '''
import doctest, os, sys, unittest, warnings
import pytest

def documented():
    """
    >>> 1 + 1
    2
    """

@pytest.fixture(scope="class")
def shared():
    print("shared up")
    yield []
    print("shared down", file=sys.stderr)

class TestShared:
    def test_first(self, shared):
        shared.append(1)
        print("first")

    def test_second(self, shared):
        shared.append(2)
        assert shared == [1, 2], "in one process"

@pytest.mark.parametrize("number", [1, 2, 3])
def test_parametrized(number, record_property):
    record_property("number", number)
    assert number != 2

def test_skipped():
    pytest.skip("not here")

def test_lacks():
    pytest.importorskip("no_such_module")

@pytest.mark.xfail
def test_expected():
    assert False

@pytest.mark.xfail(strict=True)
def test_unexpected():
    pass

def test_warns():
    warnings.warn("beware", UserWarning)

def test_subtests(subtests):
    for number in range(3):
        with subtests.test(number=number):
            assert number != 1

@pytest.fixture
def broken():
    raise ValueError("set-up")

def test_error(broken):
    pass

@pytest.fixture
def late():
    yield
    raise ValueError("teardown")

def test_late(late):
    pass

class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.known = ["class"]

    def test_a(self):
        self.known.append("a")

    def test_b(self):
        self.assertEqual(self.known, ["class", "a"])

    @unittest.expectedFailure
    def test_fails(self):
        self.fail("as it should")

def test_captured(capfd, caplog, tmp_path, monkeypatch):
    os.system("echo from a child")
    assert capfd.readouterr().out == "from a child\\n"
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    __import__("logging").info("logged")
    assert caplog.messages == ["logged"]
'''


@pytest.mark.parametrize("unit", ["module", "session"])
def test_the_output_is_that_of_a_plain_run(run: Run, unit: str) -> None:
    options = ("-rA", "--doctest-modules", "-v", "-W", "default")
    plain, inside = run(SUITE, *options), run(SUITE, *options, f"--sandbox={unit}")
    assert body(inside) == body(plain)
    assert inside.ret == plain.ret
    assert plain.parseoutcomes()["passed"] > 5


@pytest.mark.parametrize("unit", ["module", "session"])
def test_junit_s_report_is_that_of_a_plain_run(run: Run, unit: str) -> None:
    run(SUITE, "--junitxml=plain.xml", "-W", "default")
    run(SUITE, "--junitxml=inside.xml", "-W", "default", f"--sandbox={unit}")
    assert results("inside.xml") == results("plain.xml")


@pytest.mark.parametrize(
    ("unit", "options"),
    [("test", ("-x",)), ("session", ("-x",)), ("module", ("--maxfail=2",)), ("module", ("--sw",))],
    ids=["test", "session", "maxfail", "stepwise"],
)
def test_a_run_stops_where_a_plain_one_does(run: Run, unit: str, options: tuple[str, ...]) -> None:
    suite = f"{CONFTEST}\n" + "".join(
        f"def test_{number}(module_pid): assert {number} not in (2, 4)\n" for number in range(6)
    )
    plain = run(suite, *options, "-o", "cache_dir=plain")
    inside = run(suite, *options, "-o", "cache_dir=inside", f"--sandbox={unit}")
    assert inside.parseoutcomes() == plain.parseoutcomes()
    # What was set up for tests that did not come any more is torn down, and that is shown as always.
    assert inside.stdout.str().count("module down") == plain.stdout.str().count("module down") or unit == "test"


@pytest.mark.parametrize("unit", ["module", "session"])
def test_one_that_dies_is_one_failure_and_the_rest_has_a_machine_of_its_own(run: Run, unit: str) -> None:
    result = run(
        f"""{CONFTEST}
def test_first(met, module_pid): assert met("first") == []
def test_dies(module_pid): os._exit(3)
def test_next(met, module_pid): assert met("next") == []
def test_last(met, module_pid): assert met("last") == ["next"]
""",
        f"--sandbox={unit}",
    )
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*the test's process ended with exit status 3, without a report*"])


def test_other_words_are_another_machine(run: Run) -> None:
    result = run(
        f"""{CONFTEST}
def test_first(met): assert met("first") == []
def test_second(met): assert met("second") == ["first"]

@pytest.mark.sandbox(hostname="other")
def test_other(met):
    assert met("other") == []
    assert os.uname().nodename == "other"

def test_third(met): assert met("third") == []
""",
        "--sandbox=session",
    )
    result.assert_outcomes(passed=4)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("mark", ["pytest.mark.no_sandbox", "pytest.mark.sandbox(inside=False)"], ids=["no", "not-in"])
def test_a_test_can_be_exempt(run: Run, unit: str, mark: str) -> None:
    result = run(
        f"""{CONFTEST}
HERE = os.uname().nodename

def test_before(met): assert met("before") == [] and os.uname().nodename == "sandbox"

@{mark}
def test_exempt():
    assert os.uname().nodename == HERE

def test_after(met): assert met("after") == [] and os.uname().nodename == "sandbox"
""",
        f"--sandbox={unit}",
    )
    result.assert_outcomes(passed=3)


def test_a_path_behind_the_option_is_a_path(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a="def test(): pass", test_b="def test(): assert False")
    run("", "--sandbox", "test_a.py").assert_outcomes(passed=1)
    run("", "--sandbox=module", "test_a.py").assert_outcomes(passed=1)


def test_a_unit_that_is_none_is_a_usage_error(run: Run) -> None:
    result = run("def test(): pass", "--sandbox=class")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--sandbox*'class'*"])


def test_what_a_unit_has_captured_is_kept_where_one_of_its_tests_has_failed(run: Run) -> None:
    result = run(
        "import socket\n"
        "def talk(): socket.socket(type=socket.SOCK_DGRAM).sendto(b'packet', ('127.0.0.1', 7))\n"
        "def test_first(): talk()\n"
        "def test_fails(): assert talk()\n"
        "def test_last(): talk()\n",
        "--sandbox=module",
        "--sandbox-capture=failed",
    )
    result.assert_outcomes(passed=2, failed=1)
    (path,) = re.findall(r"^\S+::test_last: (.*pcap)$", result.stdout.str(), re.MULTILINE)
    # As many come back with the answer that nobody listens there.
    assert Path(path).read_bytes().count(b"packet") == 6
