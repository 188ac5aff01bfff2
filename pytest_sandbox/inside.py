"""A test's body inside its sandbox: a fork of this process enters, runs it, and sends the real report home.

The child goes the whole way of pytest's own call phase, with every plugin's hooks, until its report is made; the
parent goes the same way with a stand-in for the body, which waits for that report and raises what the body raised, so
that whoever wraps these hooks sees the right outcome on both sides. PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

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
    from collections.abc import Iterator

    from pytest_sandbox_runtime.sandbox import Sandbox

FIXTURE = "_sandbox_inside"
BODY = pytest.StashKey["Body"]()
_LENGTH = struct.Struct("!Q")


class Told(NamedTuple):
    """What comes home: the serialized report, what the body raised, and what it left on its item."""

    report: dict[str, Any]
    raised: BaseException | None
    user_properties: list[tuple[str, object]]
    warnings: list[tuple[str, type[Warning], str, int]]


class Died(Exception):  # noqa: N818  raised in place of what the body would have raised
    """The body's process ended without a report."""


@pytest.fixture(name=FIXTURE)
def _inside(request: pytest.FixtureRequest) -> Iterator[None]:
    """The machine that this test's body runs in."""
    if error := marks.error_of(request.node):
        pytest.fail(error, pytrace=False)
    with fixtures.start(request.node, marks.spec_of(request.node)) as sandbox:
        body = request.node.stash[BODY] = Body(request.node, sandbox)
        try:
            yield
            fixtures.keep(request.node, sandbox)
        finally:
            sandbox.close()
            body.reap()


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
        self._caught: list[warnings.WarningMessage] = []
        self.is_child = False

    def call(self) -> Iterator[None]:
        """Wrap the call phase: in the child it is the real one, in the parent one that waits."""
        if self._fork():
            with warnings.catch_warnings(record=True) as self._caught:
                yield
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
        self._child = fork_into(self._sandbox, os.getcwd(), lambda status: _send(write, status))
        self.is_child = self._child == 0
        self._pipe = write if self.is_child else read
        os.close(read if self.is_child else write)
        return self.is_child

    def _await(self) -> None:
        __tracebackhide__ = True
        self._told = self._receive()
        for message, category, filename, line in self._told.warnings:
            warnings.warn_explicit(message, category, filename, line)
        if self._told.raised is not None:
            raise self._told.raised

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
        text = message if isinstance(message, str) else _how_it_died(message, self._sandbox)
        report = {"crashed": text}
        return Told(report, Died(text), [], [])

    def take_home(self, report: pytest.TestReport, call: pytest.CallInfo[Any]) -> None:
        """End the child with its report sent; what is interactive happened here, where the body's frames are."""
        if call.excinfo is not None and not report.skipped and not hasattr(report, "wasxfail"):
            self._item.ihook.pytest_exception_interact(node=self._item, call=call, report=report)
        data = self._item.config.hook.pytest_report_to_serializable(config=self._item.config, report=report)
        caught = [(str(one.message), one.category, one.filename, one.lineno) for one in self._caught]
        raised = call.excinfo.value if call.excinfo is not None else None
        _flush()
        _send(self._pipe, Told(data, raised, self._item.user_properties, caught))
        os._exit(0)

    def real_report(self, stand_in: pytest.TestReport, call: pytest.CallInfo[Any]) -> pytest.TestReport:
        """Return the child's report in the place of the parent's own."""
        told = self._told
        if told is None:
            return stand_in
        call.excinfo = None  # the child has let debuggers at it already
        if "crashed" in told.report:
            stand_in.longrepr = told.report["crashed"]
            return stand_in
        report: pytest.TestReport = self._item.config.hook.pytest_report_from_serializable(
            config=self._item.config, data=told.report
        )
        self._item.user_properties[:] = told.user_properties
        for title, text in report.sections:
            # Later reports of this item repeat the sections of the earlier ones.
            _, _, name = title.partition("Captured ")
            key, _, when = name.rpartition(" ")
            if when == "call":
                self._item.add_report_section(when, key, text)
        return report

    def reap(self) -> None:
        """Reap the child, whose sandbox is gone."""
        if self._child:
            os.waitpid(self._child, 0)
            self._child = 0


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()


def _send(pipe: int, message: object) -> None:
    try:
        data = pickle.dumps(message)
    except Exception as error:
        if not isinstance(message, Told):
            raise
        data = pickle.dumps(_portable(message, error))
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(pipe, view) :]


def _portable(told: Told, error: Exception) -> Told:
    raised = None if told.raised is None else Died(f"{type(told.raised).__name__}: {told.raised} ({error})")
    properties: list[tuple[str, object]] = [(name, str(value)) for name, value in told.user_properties]
    return Told(told.report, raised, properties, [(text, Warning, file, line) for text, _, file, line in told.warnings])


def _receive(pipe: int, timeout: float | None) -> Any:
    deadline = None if timeout is None else time.monotonic() + timeout
    (size,) = _LENGTH.unpack(_read(pipe, _LENGTH.size, deadline))
    return pickle.loads(_read(pipe, size, deadline))


def _read(pipe: int, size: int, deadline: float | None) -> bytes:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    data = b""
    while len(data) < size:
        if not poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        chunk = os.read(pipe, size - len(data))
        if not chunk:
            return _LENGTH.pack(0) if size == _LENGTH.size else data
        data += chunk
    return data


def _how_it_died(status: object, sandbox: Sandbox) -> str:
    from pytest_sandbox_runtime.specs import Outcome

    if not isinstance(status, int):
        return "the test's process ended without a report"
    outcome = Outcome("the test's process", status, oom_killed=sandbox.was_oom_killed())
    return f"{outcome}, without a report"
