"""``python -m benchmarks``: one run, one table. See --help."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bases import make_base
from benchmarks.rivals import rivals
from benchmarks.table import Row, render
from benchmarks.works import WORKS, Bench


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure sandboxes beside bwrap, runc and Docker, where installed."
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions, or fewer")
    parser.add_argument("--no-docker", action="store_true", help="do not start a dockerd")
    parser.add_argument("--root", metavar="PATH", help="the base: a root file system's directory, or a tar of it")
    parser.add_argument("--only", metavar="WORK", choices=[work.__name__ for work in WORKS], help="one row only")
    return parser.parse_args()


def main() -> int:
    """Print the table; the status is 1 where something that must be reached was not."""
    words = _arguments()
    rows: list[Row] = []
    with ExitStack() as undo:
        where = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        root = make_base(where, words.root)
        found, absent = rivals(root, where, undo, docker=not words.no_docker)
        bench = Bench(where=where, root=root, quick=words.quick, rivals=found)
        for work in WORKS:
            if words.only in (None, work.__name__):
                print(f"measuring {work.__name__} ...", file=sys.stderr, flush=True)
                rows.append(work(bench))
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    print(f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} processors, as {who}.")
    print("Times are medians.", *(f"Not measured: {line}." for line in absent))
    print(f"\n{render(rows)}")
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
