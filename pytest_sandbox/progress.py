"""What builds say while they go on: a line a step, and on a terminal how long each took. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import contextlib
import shutil
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

_ROOM = len(" 1000.0 s") + 1


class Progress:
    """Says with ``write``, from whatever threads, what it is told; see EngineSettings.report and done.

    On a terminal the line of a step stays open until the step is done, and then gets its time.
    """

    def __init__(self, write: Callable[[str], None], *, is_terminal: bool) -> None:
        self._write = write
        self._is_terminal = is_terminal
        self._open = ""
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

    def done(self, line: str, seconds: float) -> None:
        """Say how long the step took that ``line`` was said of; without a terminal nothing."""
        if not self._is_terminal:
            return
        with self._lock:
            if self._open != line:
                # The line of a stage built beside it has come between.
                self._end_line()
                self._write(_cut(line))
            self._write(f" {seconds:.1f} s\n")
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


def _cut(line: str) -> str:
    width = shutil.get_terminal_size().columns - _ROOM
    return line if len(line) <= width else f"{line[: width - 3]}..."
