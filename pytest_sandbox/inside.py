"""A test's body inside its sandbox: a fork of this process enters, runs it, and sends the real report home.

The child goes the whole way of pytest's own call phase, with every plugin's hooks, until its report is made; the
parent goes the same way with a stand-in for the body, which waits for that report and raises what the body raised, so
that whoever wraps these hooks sees the right outcome on both sides. PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import struct
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_sandbox import fixtures, marks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_sandbox_runtime.sandbox import Sandbox

    # A report, or what pytest_report_to_serializable makes of it.
    Packed = pytest.TestReport | dict[str, Any]

FIXTURE = "_sandbox_inside"
BODY = pytest.StashKey["Body"]()
CHILDREN = pytest.StashKey[list[int]]()
# What a plain run stops at.
_ENDS_THE_RUN = (KeyboardInterrupt, pytest.exit.Exception)
_LENGTH = struct.Struct("!Q")


class Told(NamedTuple):
    """What comes home: the report, or none and why, what the body raised, left on its item, warned of and logged."""

    report: Packed | None
    raised: BaseException | None = None
    user_properties: Sequence[tuple[str, object]] = ()
    warnings: Sequence[tuple[str, type[Warning], str, int]] = ()
    logged: Sequence[Packed] = ()


class Died(Exception):  # noqa: N818  raised in place of what the body would have raised
    """The body's process ended without a report."""


@pytest.fixture(name=FIXTURE)
def _inside(request: pytest.FixtureRequest) -> Iterator[None]:
    """The machine that this test's body runs in."""
    if error := marks.error_of(request.node):
        pytest.fail(error, pytrace=False)
    with fixtures.start(request.node, marks.spec_of(request.node)) as sandbox:
        request.node.stash[BODY] = Body(request.node, sandbox)
        try:
            yield
            fixtures.keep(request.node, sandbox)
        finally:
            sandbox.close()


def prepare(items: list[pytest.Item]) -> None:
    """Have the machine made, as a fixture that is set up last, for each item whose body runs inside."""
    for item in items:
        names = getattr(item, "fixturenames", None)
        if names is not None and FIXTURE not in names and marks.runs_inside(item):
            names.append(FIXTURE)


class Body:
    """One test's body, seen from both sides of the fork."""

    def __init__(self, item: pytest.Item, sandbox: Sandbox) -> None:
        self._item = item
        self._sandbox = sandbox
        self._pipe = -1
        self._child = 0
        self._told: Told | None = None
        self._warnings: list[tuple[str, type[Warning], str, int]] = []
        self._logged: list[Packed] = []
        self._is_over = False
        self.is_child = False

    def call(self) -> Iterator[None]:
        """Wrap the call phase: in the child it is the real one, in the parent one that waits."""
        if self._fork():
            self._listen()
            try:
                yield
            except _ENDS_THE_RUN as error:
                self._leave(None, error)
            finally:
                self._is_over = True
            return
        # An attribute of the instance hides the class's method; whatever kind of item it is, pytest calls this.
        self._item.runtest = self._await  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self._item.runtest

    def _fork(self) -> bool:
        from pytest_sandbox_runtime.entering import fork_into

        _flush()
        read, write = os.pipe2(os.O_CLOEXEC)
        _reap(self._item.config, os.WNOHANG)
        # What there is now is not the child's to collect: its collector would touch, and so copy, all of it.
        gc.freeze()
        self._child = fork_into(self._sandbox, os.getcwd(), lambda sentence: _send(write, sentence))
        self.is_child = self._child == 0
        if not self.is_child:
            gc.unfreeze()
            self._item.config.stash[CHILDREN].append(self._child)
        self._pipe = write if self.is_child else read
        os.close(read if self.is_child else write)
        return self.is_child

    def _listen(self) -> None:
        """Note, in the child, what the parent has to hear of; whoever listens besides hears it as always."""
        show = warnings.showwarning

        def note_warning(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any, **words: Any
        ) -> None:
            self._warnings.append((str(message), category, filename, lineno))
            show(message, category, filename, lineno, *more, **words)

        def note_report(report: pytest.TestReport) -> None:
            self._logged.append(self._packed(report))

        warnings.showwarning = note_warning
        # Subtests report while their test runs; the terminal that is told is the parent's.
        self._item.ihook.pytest_runtest_logreport = note_report  # type: ignore[attr-defined]

    def _packed(self, report: pytest.TestReport) -> Packed:
        """Return the report, or, where a plugin has hung something on it that cannot travel, what xdist would send."""
        if _can_travel(report):
            return report
        config = self._item.config
        data: dict[str, Any] = config.hook.pytest_report_to_serializable(config=config, report=report)
        return {**data, "user_properties": _portable_properties(report.user_properties)}

    def _unpacked(self, packed: Packed) -> pytest.TestReport:
        if isinstance(packed, pytest.TestReport):
            return packed
        config = self._item.config
        report: pytest.TestReport = config.hook.pytest_report_from_serializable(config=config, data=packed)
        return report

    def _await(self) -> None:
        __tracebackhide__ = True
        self._told = self._receive()
        for message, category, filename, line in self._told.warnings:
            warnings.warn_explicit(message, category, filename, line)
        self._log(self._told.logged)
        if self._told.raised is not None:
            raise self._told.raised

    def _log(self, logged: Sequence[Packed]) -> None:
        if logged:
            capture = self._item.config.pluginmanager.getplugin("capturemanager")
            with capture.global_and_fixture_disabled():
                for packed in logged:
                    self._item.ihook.pytest_runtest_logreport(report=self._unpacked(packed))

    def _receive(self) -> Told:
        timeout = self._sandbox.spec.timeout
        try:
            message = _receive(self._pipe, timeout)
        except TimeoutError:
            self._sandbox.close()
            message = f"the test did not end within {timeout:g} s, and its sandbox was killed"
        finally:
            os.close(self._pipe)
        if isinstance(message, Told):
            return message
        text = message or self._how_it_died()
        return Told(None, Died(text))

    def take_home(self, report: pytest.TestReport, call: pytest.CallInfo[Any]) -> None:
        """End the child, once the body is over, with its report sent.

        What is interactive happens before, here, where the body's frames are.
        """
        if not self._is_over:
            return
        try:
            if call.excinfo is not None and not report.skipped and not hasattr(report, "wasxfail"):
                self._item.ihook.pytest_exception_interact(node=self._item, call=call, report=report)
        except _ENDS_THE_RUN as error:
            self._leave(None, error)
        if self._logged:
            # Where subtests have failed, this makes their test fail.
            self._item.config.hook.pytest_report_teststatus(report=report, config=self._item.config)
        self._leave(self._packed(report), call.excinfo.value if call.excinfo is not None else None)

    def _leave(self, report: Packed | None, raised: BaseException | None) -> None:
        _flush()
        _send(self._pipe, Told(report, raised, self._item.user_properties, self._warnings, self._logged))
        os._exit(0)

    def real_report(self, stand_in: pytest.TestReport, call: pytest.CallInfo[Any]) -> pytest.TestReport:
        """Return the child's report in the place of the parent's own."""
        told = self._told
        if told is None:
            return stand_in
        call.excinfo = None  # the child has let debuggers at it already
        if told.report is None:
            stand_in.longrepr = str(told.raised)
            return stand_in
        report = self._unpacked(told.report)
        self._item.user_properties[:] = told.user_properties
        for title, text in report.sections:
            # Later reports of this item repeat the sections of the earlier ones.
            _, _, name = title.partition("Captured ")
            key, _, when = name.rpartition(" ")
            if when == "call":
                self._item.add_report_section(when, key, text)
        return report

    def _how_it_died(self) -> str:
        from pytest_sandbox_runtime.specs import Outcome

        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        self._item.config.stash[CHILDREN].remove(self._child)
        outcome = Outcome("the test's process", status, oom_killed=self._sandbox.was_oom_killed())
        return f"{outcome}, without a report"


def _reap(config: pytest.Config, options: int) -> None:
    """Reap the children of earlier tests, which nobody waits for while they die."""
    children = config.stash.setdefault(CHILDREN, [])
    children[:] = [pid for pid in children if os.waitpid(pid, options)[0] == 0]


def reap_all(config: pytest.Config) -> None:
    """Wait for the children that still die; their sandboxes are gone."""
    _reap(config, 0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()


def _send(pipe: int, message: Told | str) -> None:
    data = pickle.dumps(_portable(message) if isinstance(message, Told) else message)
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(pipe, view) :]


def _portable(told: Told) -> Told:
    """Return ``told`` with what cannot travel replaced by the nearest that can."""
    raised = told.raised
    if raised is not None and not _can_travel(raised):
        raised = Died(f"{type(raised).__name__}: {raised}")
    properties = _portable_properties(told.user_properties)
    caught = [(text, _portable_category(category), file, line) for text, category, file, line in told.warnings]
    return Told(told.report, raised, properties, caught, told.logged)


def _portable_properties(properties: Sequence[tuple[str, object]]) -> list[tuple[str, object]]:
    return [(name, value if _can_travel(value) else str(value)) for name, value in properties]


def _portable_category(category: type[Warning]) -> type[Warning]:
    return next(kind for kind in category.__mro__ if _can_travel(kind))


def _can_travel(value: object) -> bool:
    if type(value) in (str, int, float, bool):
        return True
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return False
    return True


def _receive(pipe: int, timeout: float | None) -> Told | str | None:
    """Return what was sent, or None at an end of file before that; raises TimeoutError."""
    deadline = None if timeout is None else time.monotonic() + timeout
    (size,) = _LENGTH.unpack(_read(pipe, _LENGTH.size, deadline).ljust(_LENGTH.size, b"\0"))
    data = _read(pipe, size, deadline)
    return pickle.loads(data) if data and len(data) == size else None


def _read(pipe: int, size: int, deadline: float | None) -> bytes:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    data = b""
    while len(data) < size:
        if not poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        chunk = os.read(pipe, size - len(data))
        if not chunk:
            break
        data += chunk
    return data
