"""``sandbox.lock``: what the images and packages of a suite are pinned to. Read if it is there, written on request.

It is TOML of the simplest kind, sorted, a name a line, so that a change of it is read in a diff. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import pickle
import re
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox.settings import LOCK_NAME, SETTINGS
from pytest_sandbox_runtime.images.lock import IMAGES, PACKAGES, Lock

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from pytest_sandbox_runtime.images.lock import Name

LOCK = pytest.StashKey[Lock]()
_HEAD = "# What the images of this suite are. pytest --sandbox-lock adds to it, and --sandbox-lock=update renews it.\n"
_VALUES = {IMAGES: re.compile(r"sha256:[a-f0-9]{64}"), PACKAGES: re.compile(r"\d{8}T\d{6}Z")}
_TABLE = re.compile(r"\[(\w+)\]")
_PIN = re.compile(r'"([^"\\]+)" = "([^"\\]+)"')
_OUTPUT = "sandbox_lock"


def configure(config: pytest.Config) -> None:
    """Read the file, if there is one, for this run; raises UsageError where it is damaged."""
    mode, path = config.stash[SETTINGS].lock, config.rootpath / LOCK_NAME
    pins = parse(path.read_text("utf-8", "replace")) if path.exists() else {}
    config.stash[LOCK] = Lock(pins, adds=mode == "add", renews=mode == "update")
    config.pluginmanager.register(_Writer(config), "sandbox-lock")


def parse(text: str) -> dict[Name, str]:
    """Return the pins in ``text``; raises UsageError."""
    pins: dict[Name, str] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if (head := _TABLE.fullmatch(line)) and head[1] in _VALUES:
            table = head[1]
        elif table and (pin := _PIN.fullmatch(line)) and _VALUES[table].fullmatch(pin[2]):
            pins[table, pin[1]] = pin[2]
        else:
            mend = "mend it, or remove the file and run pytest --sandbox-lock"
            raise pytest.UsageError(f"{LOCK_NAME}:{number}: {line!r:.80} cannot be read; {mend}")
    return pins


def text_of(pins: dict[Name, str]) -> str:
    """Return what the file holds for ``pins``."""
    tables = []
    for table in _VALUES:
        lines = [f'"{name}" = "{value}"\n' for (kind, name), value in sorted(pins.items()) if kind == table]
        if lines:
            tables.append(f"\n[{table}]\n{''.join(lines)}")
    return _HEAD + "".join(tables)


class _Writer:
    """Brings together what all processes of a run have used, and writes it down at its end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lock = config.stash[LOCK]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take in what a worker has used."""
        told = getattr(node, "workeroutput", {}).get(_OUTPUT)
        if told is not None:
            self._lock.add(pickle.loads(told))

    def pytest_sessionfinish(self) -> None:
        """Tell the controller, where there is one."""
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[_OUTPUT] = pickle.dumps(self._lock)

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Say what the file does not have, or what has moved since."""
        lock = self._lock
        lines = [f"{name[1]} was {lock.used[name]}, and is {now} now" for name, now in sorted(lock.moved.items())]
        if lines:
            lines.append("what was locked is what was used; pytest --sandbox-lock=update takes what is now")
        missing = ", ".join(name for _, name in sorted(lock.unpinned))
        if missing:
            lines.append(f"not locked: {missing}; pytest --sandbox-lock adds what is missing")
        if lines:
            terminalreporter.section(LOCK_NAME)
        for line in lines:
            terminalreporter.write_line(line)

    def pytest_unconfigure(self) -> None:
        """Write the file, if that was asked for."""
        if not self._lock.adds or hasattr(self._config, "workerinput"):
            return
        path, text = self._config.rootpath / LOCK_NAME, text_of(self._lock.after())
        if not path.exists() or path.read_text("utf-8", "replace") != text:
            partial = path.with_name(f".{LOCK_NAME}.{os.getpid()}")
            partial.write_text(text, "utf-8")
            os.replace(partial, path)
