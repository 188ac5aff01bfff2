"""The command ``pytest-sandbox``. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["build"]:
        from pytest_sandbox.cli.answers import recall

        printed = recall(argv)
        if printed is not None:
            print(printed)
            return 0
    from pytest_sandbox.cli.commands import run

    return run(argv)
