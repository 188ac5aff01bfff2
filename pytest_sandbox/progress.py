"""What builds say while they go on: a line a step, and on a terminal how long each took. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

_ROOM = len(" 1000.0 s") + 1
_BAR = 20
# Seconds between two looks of a bar.
_PERIOD = 0.1
# To the end of the line: console_codes(4).
_CLEAR = "\033[K"


class Progress:
    """Says with ``write``, from whatever threads, what it is told; see EngineSettings.report, done and amount.

    On a terminal the line of a step stays open until the step is done, and then gets its time; that of a pull or a push
    has a bar meanwhile.
    """

    def __init__(self, write: Callable[[str], None], *, is_terminal: bool) -> None:
        self._write = write
        self._is_terminal = is_terminal
        self._open = ""
        self._amounts: dict[str, _Amount] = {}
        self._lock = threading.Lock()

    def report(self, line: str) -> None:
        """Say that a step begins."""
        with self._lock:
            if self._is_terminal:
                self._end_line()
                self._write(_cut(line))
                self._open = line
            else:
                self._write(f"{line}\n")

    def amount(self, line: str, there: int, total: int) -> None:
        """Say how much of what ``line`` was said of is there, some ten times a second."""
        if not self._is_terminal:
            return
        with self._lock:
            now = time.monotonic()
            amount = self._amounts.setdefault(line, _Amount(now))
            amount.there = there
            if self._open == line and now >= amount.due:
                amount.due = now + _PERIOD
                self._write(f"\r{_cut(line, amount.bar(total, now))}{_CLEAR}")

    def done(self, line: str, seconds: float) -> None:
        """Say how long the step took that ``line`` was said of; without a terminal nothing."""
        if not self._is_terminal:
            return
        with self._lock:
            amount = self._amounts.pop(line, None)
            end = f"{'' if amount is None else f' {_megabytes(amount.there)},'} {seconds:.1f} s"
            if self._open != line:
                # The line of a stage built beside it has come between.
                self._end_line()
                self._write(_cut(line, end))
            else:
                self._write(end if amount is None else f"\r{_cut(line, end)}{_CLEAR}")
            self._write("\n")
            self._open = ""

    def _end_line(self) -> None:
        if self._open:
            self._write("\n")
        self._open = ""


def progress_of(config: pytest.Config) -> Progress:
    """Return what says what a run builds where pytest reports; it says nothing with -q.

    Nor does it in a worker of xdist, which has no terminal's reporter.
    """
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or config.getoption("verbose") < 0:
        return Progress(lambda _text: None, is_terminal=False)
    capture: Any = config.pluginmanager.getplugin("capturemanager")

    def write(text: str) -> None:
        # What is captured is a test's own, and the terminal's file is captured with it.
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            reporter.ensure_newline()
            reporter.write(text, flush=True)

    return Progress(write, is_terminal=reporter.isatty)


class _Amount:
    """How much of something is there, and when it is due to be said again."""

    def __init__(self, began: float) -> None:
        self.began = self.due = began
        self.there = 0

    def bar(self, total: int, now: float) -> str:
        """Return the bar, the bytes and the rate, as the end of a line."""
        full = _BAR * self.there // total if total else 0
        rate = _megabytes(self.there / max(now - self.began, _PERIOD))
        return f" [{'#' * full:<{_BAR}}] {_megabytes(self.there)} of {_megabytes(total)}, {rate}/s"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _cut(line: str, end: str = "") -> str:
    """Return ``line`` with ``end`` behind it, cut to the terminal; room for a time is left where there is no end."""
    width = shutil.get_terminal_size().columns - (len(end) + 1 if end else _ROOM)
    return (line if len(line) <= width else f"{line[: max(width - 3, 0)]}...") + end
