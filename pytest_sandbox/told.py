"""What comes home from a test inside its sandbox: reports, warnings and the end of the run. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import warnings

    from pytest_sandbox.measuring import Measured

    # A report, or what pytest_report_to_serializable makes of it.
    Packed = pytest.TestReport | dict[str, Any]

_PLAIN = (str, int, float, bool, type(None))
# What pytest itself hangs on a report; all of it travels.
_STANDARD = {
    "nodeid", "_id", "location", "keywords", "outcome", "longrepr", "when", "user_properties", "sections", "duration",
    "start", "stop", "wasxfail",
}  # fmt: skip


@dataclass(frozen=True)
class Caught:
    """A warning that was recorded, as pytest_warning_recorded has it."""

    message: Warning | str
    category: type[Warning]
    filename: str
    lineno: int
    nodeid: str
    when: str


@dataclass(frozen=True)
class Told:
    """All that a test leaves to the process that waits for it. ``raised`` is what ends the run, if it does.

    ``measured`` is with the last of a unit; ``pid`` is that of the process, as its sandbox has it.
    """

    reports: list[Packed] = field(default_factory=list)
    warnings: list[Caught] = field(default_factory=list)
    raised: BaseException | None = None
    shouldstop: bool | str = False
    shouldfail: bool | str = False
    measured: Measured | None = None
    pid: int = 0


class _Diverted:
    """Hooks, of which those that the recorder has too are the recorder's."""

    def __init__(self, hooks: object, recorder: Recorder) -> None:
        self._hooks = hooks
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recorder, name, None) or getattr(self._hooks, name)


class Recorder:
    """Stands, in the fork, where the run's reporters stand in its parent: they are told there, and only there."""

    def __init__(self, session: Any) -> None:
        self._config: pytest.Config = session.config
        self._session = session
        self.told = Told()
        hooks_of = session.gethookproxy
        session.gethookproxy = lambda path: _Diverted(hooks_of(path), self)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the report."""
        config = self._config
        if any(_when(earlier) == "call" for earlier in self.told.reports):
            # Where subtests have failed, this makes their test fail.
            config.hook.pytest_report_teststatus(report=report, config=config)
        # By which the session stops, and tears all down before: --maxfail.
        self._session.pytest_runtest_logreport(report)
        self.told.reports.append(pack(config, report))

    def pytest_runtest_logstart(self, **_words: object) -> None:
        """The parent has said this already."""

    pytest_runtest_logfinish = pytest_runtest_logstart

    @property
    def pytest_warning_recorded(self) -> Recorder:
        return self  # as this hook is not called itself, but its call_historic

    def call_historic(self, kwargs: dict[str, Any]) -> None:
        """Note a warning, as what pytest calls pytest_warning_recorded with."""
        warning_message: warnings.WarningMessage = kwargs["warning_message"]
        message, category = warning_message.message, warning_message.category
        if not _can_travel(message):
            message = str(message)
            category = next(kind for kind in category.__mro__ if _can_travel(kind))
        where = {name: kwargs[name] for name in ("nodeid", "when")}
        caught = Caught(message, category, warning_message.filename, warning_message.lineno, **where)
        self.told.warnings.append(caught)

    def end(self, raised: BaseException | None, measured: Measured | None) -> Told:
        """Return all that was noted, and begin anew."""
        session, told, self.told = self._session, self.told, Told()
        if raised is not None and not _can_travel(raised):
            raised = KeyboardInterrupt(f"{type(raised).__name__}: {raised}")
        ends = {"shouldstop": session.shouldstop, "shouldfail": session.shouldfail}
        return replace(told, raised=raised, measured=measured, pid=os.getpid(), **ends)


def _when(packed: Packed) -> str | None:
    return packed.get("when") if isinstance(packed, dict) else packed.when


def pack(config: pytest.Config, report: pytest.TestReport) -> Packed:
    """Return the report, or, where a plugin has hung something on it that cannot travel, what xdist would send."""
    properties = [(name, value if _can_travel(value) else str(value)) for name, value in report.user_properties]
    if _STANDARD.issuperset(vars(report)) or _can_travel(report):
        report.user_properties = properties
        return report
    data: dict[str, Any] = config.hook.pytest_report_to_serializable(config=config, report=report)
    return {**data, "user_properties": properties}


def unpack(config: pytest.Config, packed: Packed) -> pytest.TestReport:
    """Return the report that was packed."""
    if isinstance(packed, pytest.TestReport):
        return packed
    report: pytest.TestReport = config.hook.pytest_report_from_serializable(config=config, data=packed)
    return report


def _can_travel(value: object) -> bool:
    if isinstance(value, _PLAIN):
        return True
    import pickle

    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return False
    return True
