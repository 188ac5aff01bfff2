"""pytest in an image of its own, told by foreign.py, outside, which tests to run. PYTEST_DONT_REWRITE.

Of the image it needs Python 3.9 and pytest 7.0, and nothing else: what it imports is theirs.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest
from _pytest import capture
from _pytest.config import ConftestImportFailure, _prepareconfig

from pytest_sandbox import fixtures, hookspecs, marks, reports, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

_LENGTH = struct.Struct("!Q")


class Channel:
    """The connection to the pytest outside, which is in place of the standard input at first."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=os.dup(0))

    def receive_files(self, number: int) -> list[int]:
        """Return descriptors."""
        return list(socket.recv_fds(self._socket, 1, number)[1])

    def tell(self, message: object) -> None:
        """Send a message; what JSON has no word for goes as text."""
        said = json.dumps(message, default=str).encode()
        self._socket.sendall(_LENGTH.pack(len(said)) + said)

    def hear(self) -> Any:
        """Return the next message, None where the other end is closed."""
        header = self._socket.recv(_LENGTH.size, socket.MSG_WAITALL)
        if not header:
            return None
        (size,) = _LENGTH.unpack(header)
        return json.loads(self._socket.recv(size, socket.MSG_WAITALL))


def serve(place: str) -> NoReturn:
    """Be pytest, for as long as the one outside wants; in ``place`` are packages that are to be found, too."""
    channel = Channel()
    *streams, file = channel.receive_files(4)
    with open(file, encoding="utf-8") as opened:
        words = json.load(opened)
    _capture_in([os.dup(1), os.dup(2)])
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    sys.path[:] = [*words["paths"], place, *(path for path in sys.path if path != place)]
    guest = Guest(channel, words)
    try:
        config = _prepareconfig(words["arguments"], [guest])
        config.hook.pytest_cmdline_main(config=config)
    except BaseException as error:
        says_itself = isinstance(error, (pytest.UsageError, ConftestImportFailure))
        guest.errors.append(str(error) if says_itself else f"{type(error).__name__}: {error}")
    channel.tell({"error": "\n".join(guest.errors) or "it has ended"})
    _flush()
    os._exit(1)


def _capture_in(files: list[int]) -> None:
    """Have pytest capture what is printed where the one outside can read it, should this process die."""
    anew = capture.TemporaryFile  # type: ignore[attr-defined]

    def temporary_file(**words: Any) -> Any:
        return open(files.pop(0), "r+b", **words) if files else anew(**words)

    capture.TemporaryFile = temporary_file  # type: ignore[assignment, attr-defined]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()


class _Mute:
    """The terminal's reporter without its hooks: what is to be reported is, outside."""

    def __init__(self, reporter: object) -> None:
        self._reporter = reporter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)


class Guest:
    """The plugin that makes of this pytest the hands of the one outside."""

    def __init__(self, channel: Channel, words: dict[str, Any]) -> None:
        self._channel = channel
        self._words = words
        self._told: dict[str, list[Any]] = {"reports": [], "warnings": []}
        # What was not collected: the node's id, "failed" or "skipped", and what pytest says.
        self._refused: list[tuple[str, str, str]] = []
        self.errors: list[str] = []

    def pytest_addhooks(self, pluginmanager: pytest.PytestPluginManager) -> None:
        pluginmanager.add_hookspecs(hookspecs)

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        settings.add_options(parser)

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        vars(config.option).update(self._words["options"])

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        self._config = config
        config.stash[fixtures.IS_INSIDE] = True
        for line in (marks.MARKER, marks.NO_MARKER):
            config.addinivalue_line("markers", line)
        plugins = config.pluginmanager
        if plugins.hasplugin("terminalprogress-plugin"):
            plugins.unregister(name="terminalprogress-plugin")
        plugins.register(_Mute(plugins.unregister(name="terminalreporter")), "terminalreporter")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._refused.append((report.nodeid, "failed", report.longreprtext))
        elif report.skipped:
            assert isinstance(report.longrepr, tuple)
            self._refused.append((report.nodeid, "skipped", report.longrepr[2].removeprefix("Skipped: ")))

    def pytest_internalerror(self, excrepr: object) -> bool:
        self.errors.append(str(excrepr))
        return True

    def pytest_exception_interact(self, node: pytest.Item | pytest.Collector) -> None:
        if node.config.option.sandbox_shell and isinstance(node, pytest.Item):
            reports.open_shell(node)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> NoReturn:
        items = {item.nodeid: item for item in session.items}
        missing = {nodeid: self._why_not(nodeid) for nodeid in self._words["tests"] if nodeid not in items}
        self._channel.tell({"missing": missing})
        while (order := self._channel.hear()) is not None:
            nodeid, following, session.testsfailed = order
            raised = self._run(session, items.get(nodeid), items.get(following))
            _flush()
            ends = {"shouldstop": session.shouldstop, "shouldfail": session.shouldfail, "raised": raised}
            self._channel.tell({**self._told, **ends})
            for told in self._told.values():
                told.clear()
        os._exit(0)

    def _why_not(self, nodeid: str) -> tuple[str, str]:
        for refused, outcome, why in self._refused:
            if refused in ("", ".", nodeid) or nodeid.startswith((f"{refused}::", f"{refused}/")):
                return outcome, why
        return "failed", "there is no such test"

    def _run(
        self, session: pytest.Session, item: pytest.Item | None, following: pytest.Item | None
    ) -> list[object] | None:
        """Run a test, or tear down what there is; returns what ends the run, if it does."""
        try:
            if item is None:
                session._setupstate.teardown_exact(None)
            else:
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        except pytest.exit.Exception as error:
            return [error.msg, error.returncode]
        except KeyboardInterrupt as error:
            return [str(error)]
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        config = self._config
        # Where subtests have failed, this makes their test fail.
        config.hook.pytest_report_teststatus(report=report, config=config)
        data = config.hook.pytest_report_to_serializable(config=config, report=report)
        self._told["reports"].append({**data, "user_properties": list(_plain(report.user_properties))})

    def pytest_warning_recorded(self, warning_message: Any, when: str, nodeid: str) -> None:
        kinds = [(kind.__module__, kind.__qualname__) for kind in warning_message.category.__mro__]
        where = (warning_message.filename, warning_message.lineno, nodeid, when)
        self._told["warnings"].append((str(warning_message.message), kinds, *where))


def _plain(properties: list[tuple[str, object]]) -> Iterator[tuple[str, object]]:
    for name, value in properties:
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            yield name, str(value)
        else:
            yield name, value
