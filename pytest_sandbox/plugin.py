"""The plugin's hooks: each calls a module, and nothing is imported, probed or started before it is needed.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox import fixtures, marks, reports, settings
from pytest_sandbox.fixtures import (
    _inside,
    sandbox,
    sandbox_engine,
    sandbox_factory,
    sandbox_network,
    sandbox_run_network,
    sandbox_shared_network,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from _pytest.terminal import TerminalReporter

__all__ = [
    "_inside",
    "sandbox",
    "sandbox_engine",
    "sandbox_factory",
    "sandbox_network",
    "sandbox_run_network",
    "sandbox_shared_network",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    settings.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_sandbox import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", marks.MARKER)
    config.addinivalue_line("markers", marks.NO_MARKER)
    config.stash[settings.SETTINGS] = settings.read_settings(config)
    if config.stash[settings.SETTINGS].lock or (config.rootpath / settings.LOCK_NAME).exists():
        from pytest_sandbox import locking

        locking.configure(config)
    if hasattr(config, "workerinput") or config.getoption("dist", "no") != "no":
        from pytest_sandbox import workers

        workers.configure(config)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.getoption("sandbox_doctor"):
        return None
    from pytest_sandbox.cli.doctor import doctor

    return doctor(print)


def pytest_report_header(config: pytest.Config) -> str:
    return reports.header(config)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wrong = marks.check(items)
    if wrong and not hasattr(config, "workerinput"):
        raise pytest.UsageError("\n".join(wrong))
    # In a worker of xdist too, whose wrong items fail in their set-up: a body must never run on the host instead.
    fixtures.show_machines(items)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, bool, bool]:
    if not any(map(marks.runs_inside, session.items)):
        return (yield)
    from pytest_sandbox import inside

    hooks: Any = session.config.hook
    hooks.pytest_runtest_protocol = inside.Protocol(hooks.pytest_runtest_protocol)
    try:
        return (yield)
    finally:
        hooks.pytest_runtest_protocol = hooks.pytest_runtest_protocol.hook
        # Before the engine: the kernel ends no pid namespace before all in it have been reaped, by their parents.
        # And before anybody reports what was measured.
        inside.close(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    reports.begin(item)
    if marks.runs_inside(item):
        from pytest_sandbox import inside

        inside.check_set_up(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is not None and not call.excinfo.errisinstance((pytest.skip.Exception,)):
        reports.add_sections(item, call)
    report = yield
    if fixtures.ENGINE in item.config.stash and fixtures.IS_INSIDE not in item.config.stash:
        from pytest_sandbox import violations

        violations.tell(item, report)
    if report.failed:
        item.stash[fixtures.FAILED] = True
    if report.when == "teardown" and fixtures.IS_INSIDE not in item.config.stash:
        fixtures.end_captures(item, report)
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    return reports.explain_changes(op, left, right)


def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    if node.config.stash[settings.SETTINGS].shell and isinstance(node, pytest.Item):
        reports.open_shell(node)


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    reports.summarize(terminalreporter, config)


def pytest_unconfigure(config: pytest.Config) -> None:
    reports.close_engine(config)
