"""PYTEST_DONT_REWRITE. What remains of a command."""

from __future__ import annotations

import shlex
import signal
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """A command that has ended. ``returncode`` as subprocess has it: the exit status, or minus the signal's number."""

    args: list[str] | str
    returncode: int
    stdout: Any = ""
    stderr: Any = ""
    duration: float = 0.0
    oom_killed: bool = False

    def command(self) -> str:
        """Return the command as it could be pasted into a shell."""
        return self.args if isinstance(self.args, str) else shlex.join(self.args)

    def tail(self, lines: int = 20) -> str:
        """Return the last ``lines`` of what it printed, errors last."""
        text = "".join(
            part if isinstance(part, str) else part.decode(errors="replace")
            for part in (self.stdout, self.stderr)
            if part
        )
        return "\n".join(text.splitlines()[-lines:])

    def __str__(self) -> str:
        if self.oom_killed:
            return f"{self.command()} was killed by the kernel, out of memory"
        if self.returncode < 0:
            return f"{self.command()} was killed by {_signal_name(-self.returncode)}"
        return f"{self.command()} ended with exit status {self.returncode}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
