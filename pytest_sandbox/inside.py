"""Tests inside: each test's whole protocol runs in a fork of this process that has entered a sandbox.

What its reporters are told here is what they would be told of a plain run. Tests of a unit that follow each other have
one fork, and one sandbox; while its last test runs, the fork of the next unit waits in a sandbox of its own: between
them nothing changes in this process. In another image it is a pytest of its own in the place of a fork: see foreign.
PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox import crossing, fixtures, leaks, marks, measuring, reports, violations
from pytest_sandbox.fixtures import IS_INSIDE, UNITS
from pytest_sandbox.zygote import Zygote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox.measuring import Measured
    from pytest_sandbox.told import Recorder, Told
    from pytest_sandbox.unit import Unit
    from pytest_sandbox_runtime.sandbox import Sandbox

_RECORDER: pytest.StashKey[Recorder] = pytest.StashKey()
_RUNS_IN = pytest.StashKey[object]()
# What a plain run stops at.
_ENDS_THE_RUN = (KeyboardInterrupt, pytest.exit.Exception)


class Died(Exception):  # noqa: N818  raised in place of what the test would have raised
    """The test's process ended without a report; ``printed`` is what it has left on stdout and stderr."""

    def __init__(self, message: str, printed: tuple[str, str]) -> None:
        super().__init__(message)
        self.sections = [
            (f"Captured {name} call", text) for name, text in zip(("stdout", "stderr"), printed, strict=True) if text
        ]


def check_set_up(item: pytest.Item) -> None:
    """Fail where ``item``, which is to run inside, cannot: what it uses is outside, or another plugin runs it there."""
    if IS_INSIDE in item.config.stash:
        crossing.check(item)
    elif not item.config.getoption("setupplan", False):
        pytest.fail("another plugin runs this test, and not in its sandbox", pytrace=False)


class Protocol:
    """Stands for the hook pytest_runtest_protocol while tests run.

    What other plugins do before and after a test, time-outs, repetitions, they do inside, and not here a second time.
    """

    def __init__(self, hook: Any) -> None:
        self.hook = hook

    def __call__(self, *, item: pytest.Item, nextitem: pytest.Item | None) -> Any:
        """Run the test, inside where it is to be."""
        return _run(item, nextitem) or self.hook(item=item, nextitem=nextitem)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.hook, name)


def _run(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run the test inside, if it is to be there."""
    config = item.config
    if IS_INSIDE in config.stash:
        return False
    if not marks.runs_inside(item) or config.getoption("setupplan", False):
        # What this test changes outside, the next inside is to see.
        close(config)
        return False
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _reports(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[pytest.TestReport]:
    units = item.config.stash.setdefault(UNITS, Units(item.session))
    made = pytest.CallInfo.from_call(lambda: units.take(item), "setup", reraise=_ENDS_THE_RUN)
    if made.excinfo is not None:
        yield _report(item, made)
    else:
        unit, following = made.result, units.following(item, nextitem)
        is_over = True
        try:
            unit.begin(item, following)
            if following is None:
                units.get_ahead(nextitem)
            heard = pytest.CallInfo.from_call(lambda: _hear(unit), "call", reraise=_ENDS_THE_RUN)
            is_dead = heard.excinfo is not None
            is_over = is_dead or following is None
            if not is_dead:
                leaks.note(unit, item, heard.result.pid)
            for report in [_report(item, heard)] if is_dead else _log(item, heard.result):
                _add_to(report, item, unit, is_last=is_dead or report.when == "teardown", is_over=is_over)
                yield report
        finally:
            if is_over:
                units.end(unit)
    yield from _tear_down(item, nextitem)


def _report(item: pytest.Item, call: pytest.CallInfo[Any]) -> pytest.TestReport:
    # Not by the hook: others look there for what they have noted of the test, which is inside.
    reports.add_sections(item, call)
    report = pytest.TestReport.from_item_and_call(item, call)
    if call.excinfo is not None and isinstance(died := call.excinfo.value, Died):
        report.longrepr = str(died)
        report.sections += died.sections
    return report


def _hear(unit: Unit) -> Told:
    __tracebackhide__ = True
    timeout = unit.sandbox.spec.timeout
    try:
        told = unit.hear(timeout)
    except TimeoutError:
        told = f"the test did not end within {timeout:g} s, and its sandbox was killed"
    if told is None or isinstance(told, str):
        raise Died(told or _how_it_died(unit), unit.printed())
    return told


def _how_it_died(unit: Unit) -> str:
    outcome = unit.outcome()
    if outcome is None:
        return "the test's process has closed its connection to pytest, and was killed"
    return f"{outcome}, without a report"


def _log(item: pytest.Item, told: Told) -> Iterator[pytest.TestReport]:
    """Yield the reports; what else was told is done: warnings recorded, the run ended."""
    from pytest_sandbox.told import unpack

    item.config.stash[UNITS].note(told)
    for caught in told.warnings:
        message = warnings.WarningMessage(caught.message, caught.category, caught.filename, caught.lineno)
        words = {"warning_message": message, "when": caught.when, "nodeid": caught.nodeid, "location": None}
        item.ihook.pytest_warning_recorded.call_historic(kwargs=words)
    for packed in told.reports:
        yield unpack(item.config, packed)
    session = item.session
    session.shouldstop, session.shouldfail = (
        session.shouldstop or told.shouldstop,
        session.shouldfail or told.shouldfail,
    )
    if told.raised is not None:
        raise told.raised


def _add_to(report: pytest.TestReport, item: pytest.Item, unit: Unit, *, is_last: bool, is_over: bool) -> None:
    """Have a report say what was refused, and, where it is the test's last, what is kept of its sandbox, and where.

    What is captured is of the whole unit, and said when that ``is_over``.
    """
    if report.when != "setup" or not report.passed:
        violations.tell(item, report)
    if report.failed:
        item.stash[fixtures.FAILED] = unit.first.stash[fixtures.FAILED] = True
    if is_last and (kept := fixtures.keep(item, unit.sandbox)):
        report.user_properties = [*report.user_properties, kept]
    if is_last and is_over:
        leaks.tell(unit, item, report)
        fixtures.end_captures(unit.first, report)


def _tear_down(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[pytest.TestReport]:
    """Unmake what tests outside have made and the next test does not need: their own teardown left it to this one's.

    Nothing public does this without a set-up before it.
    """
    state: Any = item.session._setupstate
    if state.stack:
        call = pytest.CallInfo.from_call(lambda: state.teardown_exact(nextitem), "teardown", reraise=_ENDS_THE_RUN)
        if call.excinfo is not None:
            yield _report(item, call)


def _live(session: pytest.Session, item: pytest.Item | None, following: pytest.Item | None) -> Told:
    """Run the protocol, in the fork: it begins with nothing set up, and in the end has unmade all that it has made."""
    from pytest_sandbox.told import Recorder

    config, state = session.config, session._setupstate
    if _RECORDER not in config.stash:
        # What the parent has made is seen, and is the parent's to unmake.
        for finalizers, _ in state.stack.values():
            finalizers.clear()
        config.stash[_RECORDER] = Recorder(session)
    raised = None
    try:
        if item is None:
            # As a plain run does at the session's end.
            state.teardown_exact(None)
        else:
            config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    except _ENDS_THE_RUN as error:
        raised = error
    is_last = following is None or raised is not None or session.shouldfail or session.shouldstop
    return config.stash[_RECORDER].end(raised, measuring.measured() if is_last else None)


def _runs_in(item: pytest.Item) -> object:
    """Return what is the same of all tests of a unit; None of one that cannot run inside."""
    if _RUNS_IN not in item.stash:
        can = marks.runs_inside(item) and not marks.error_of(item)
        # A copy of the machine with other words is another machine.
        item.stash[_RUNS_IN] = (marks.unit_of(item), marks.spec_of(item), marks.python_of(item)) if can else None
    return item.stash[_RUNS_IN]


class Units:
    """The units of a run: the zygote that most are forks of, the one that runs, and the one that waits."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._zygote: Zygote | None = None
        self._current: Unit | None = None
        self.measured: list[Measured] = []
        self._waiting: Unit | None = None

    def take(self, item: pytest.Item) -> Unit:
        """Return the unit of ``item``; where its sandbox cannot be made, the test fails or is skipped."""
        __tracebackhide__ = True
        if self._current is not None and _runs_in(self._current.first) == _runs_in(item):
            self._current.admit(item)
            return self._current
        self._finish_current()
        unit, self._waiting = self._waiting, None
        if unit is not None and unit.first is not item:
            unit.close()
            unit = None
        if unit is None:
            if error := marks.error_of(item):
                pytest.fail(error, pytrace=False)
            unit = self._start(item)
        self._current = unit
        unit.admit(item)
        return unit

    def following(self, item: pytest.Item, nextitem: pytest.Item | None) -> pytest.Item | None:
        """Return the test that comes next, if it is of the same unit."""
        is_same = marks.unit_of(item) is not item and nextitem is not None and _runs_in(nextitem) == _runs_in(item)
        return nextitem if is_same else None

    def get_ahead(self, item: pytest.Item | None) -> None:
        """Have the next unit ready, if the test that comes next is to run inside."""
        if item is not None and marks.runs_inside(item) and not marks.error_of(item):
            try:
                self._waiting = self._start(item)
            except (OSError, pytest.fail.Exception, pytest.skip.Exception):
                # It will be met again, and told, when it is the test's turn.
                return

    def _start(self, item: pytest.Item) -> Unit:
        __tracebackhide__ = True
        sandbox = fixtures.start(item, marks.spec_of(item))
        try:
            return self._fork(item, sandbox) if sandbox.spec.image.is_host else self._start_foreign(item, sandbox)
        except BaseException:
            sandbox.close()
            raise

    def _fork(self, item: pytest.Item, sandbox: Sandbox) -> Unit:
        if self._zygote is None:
            engine = fixtures.engine_of(item.config)
            live = functools.partial(_live, self._session)
            crossing.note(self._session)
            self._zygote = Zygote(item.config, self._session.items, live, engine.leave)
        try:
            return self._zygote.fork(item, sandbox)
        except OSError:
            self._end_zygote()
            raise

    def _start_foreign(self, item: pytest.Item, sandbox: Sandbox) -> Unit:
        from pytest_sandbox import foreign
        from pytest_sandbox_runtime.errors import SandboxError

        __tracebackhide__ = True
        is_alone, runs_in = marks.unit_of(item) is item, _runs_in(item)
        tests = [item] if is_alone else [one for one in self._session.items if _runs_in(one) == runs_in]
        try:
            return foreign.start(item, sandbox, tests)
        except SandboxError as error:
            fixtures.give_up(item.config, error)

    def _end_zygote(self) -> None:
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.close()

    def end(self, unit: Unit) -> None:
        """End a unit that has nothing left to tear down, or whose tests must not go on."""
        self._current = None
        unit.close()

    def _finish_current(self) -> None:
        unit, self._current = self._current, None
        told = None if unit is None else unit.finish()
        if told is not None:
            self.note(told)

    def note(self, told: Told) -> None:
        """Keep what a unit has measured."""
        if told.measured is not None:
            self.measured.append(told.measured)

    def close(self) -> None:
        """End what there is of units, and the zygote."""
        self._finish_current()
        if self._waiting is not None:
            self._waiting.close()
        self._waiting = None
        self._end_zygote()
        measuring.merge(self.measured)
        self.measured.clear()


def close(config: pytest.Config) -> None:
    """End what is left of the units of a run."""
    units = config.stash.get(UNITS, None)
    if units is not None and IS_INSIDE not in config.stash:
        units.close()
