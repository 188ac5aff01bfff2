"""A tox of its own for each project, whose store holds nothing of its runs when it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


PATIENCE = 90


class Project:
    """A directory with a configuration of tox."""

    def __init__(self, root: Path, store: Path) -> None:
        self.root = root
        self.runs = store / "runs"
        # What was said to the tox that runs these tests is not said to those that they start.
        own = ("TOX_", "PYTEST_", "PIP_", "VIRTUALENV_", "COV", "PYTHON", "COLUMNS", "LINES")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self.env |= {"PYTEST_SANDBOX_HOME": str(store), "NO_COLOR": "1", "PIP_CONFIG_FILE": os.devnull}

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))

    @contextmanager
    def start(
        self, *options: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE
    ) -> Iterator[subprocess.Popen[str]]:
        """Start tox, which is waited for at the end, and killed when it takes too long; what it prints is one stream."""
        argv = (sys.executable, "-m", "tox", *options)
        process = subprocess.Popen(
            argv, cwd=self.root, env=self.env, stdin=stdin, stdout=stdout, stderr=subprocess.STDOUT, text=True
        )
        watch = threading.Timer(PATIENCE, process.kill)
        watch.start()
        try:
            with process:
                yield process
        finally:
            watch.cancel()

    def tox(self, *options: str, status: int = 0) -> str:
        """Run tox, which must end with ``status``; return what it has printed."""
        with self.start(*options) as process:
            out, _ = process.communicate()
        assert process.returncode == status, out
        return out

    def fails(self, *options: str) -> str:
        """Run tox on an environment that must fail before its commands run; return what it has printed."""
        out = self.tox(*options, status=1)
        assert "commands[0]>" not in out
        return out


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    root = tmp_path / "project"
    root.mkdir()
    made = Project(root, tmp_path / "store")
    yield made
    assert not made.runs.exists() or list(made.runs.iterdir()) == []
