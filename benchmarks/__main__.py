"""``python -m benchmarks``: one run, one table. See --help."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bases import make_base
from benchmarks.bench import Bench
from benchmarks.rivals import Absent, rivals
from benchmarks.table import Row, dump, load, render
from benchmarks.works import FOR_USERS, WORKS

_NOBODY = 65534


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure sandboxes beside bwrap, runc and Docker, where installed."
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions, or fewer")
    parser.add_argument("--no-docker", action="store_true", help="do not start a dockerd")
    parser.add_argument("--root", metavar="PATH", help="the base: a root file system's directory, or a tar of it")
    parser.add_argument("--only", metavar="WORK", choices=[work.__name__ for work in WORKS], help="one row only")
    parser.add_argument("--rows", action="store_true", help="print rows as JSON, a line each, for another process")
    return parser.parse_args()


def main() -> int:
    """Print the table; the status is 1 where something that must be reached was not."""
    words = _arguments()
    rows: list[Row] = []
    with ExitStack() as undo:
        where = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        root, tar = make_base(where, words.root)
        found, absent = ([], []) if words.rows else rivals(root, tar, where, undo, docker=not words.no_docker)
        bench = Bench(where=where, tar=tar, quick=words.quick, rivals=found)
        for work in WORKS:
            if words.only not in (None, work.__name__):
                continue
            print(f"measuring {work.__name__} ...", file=sys.stderr, flush=True)
            rows.append(work(bench))
            if os.geteuid() == 0 and work.__name__ in FOR_USERS:
                where.chmod(0o755)
                try:
                    rows.append(_as_user(work.__name__, tar, quick=words.quick))
                except Absent as error:
                    absent.append(f"{work.__name__} as an ordinary user: {error}")
    if words.rows:
        print("\n".join(map(dump, rows)))
    else:
        _show(rows, absent)
    return int(any(row.met is False for row in rows))


def _as_user(work: str, tar: Path, *, quick: bool) -> Row:
    """Return the row that another process, of a user without any privilege, makes."""
    argv = [sys.executable, "-m", "benchmarks", "--rows", "--only", work, "--root", str(tar), *["--quick"] * quick]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as home:
        os.chown(home, _NOBODY, _NOBODY)
        environment = {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home}
        try:
            done = subprocess.run(
                argv, user=_NOBODY, group=_NOBODY, extra_groups=[], env=environment, check=False, capture_output=True
            )
        except PermissionError as error:
            raise Absent(f"{sys.executable} is out of their reach") from error
    lines = done.stdout.decode().splitlines()
    if not lines:
        raise Absent(done.stderr.decode().strip().splitlines()[-1])
    return load(lines[-1])


def _show(rows: list[Row], absent: list[str]) -> None:
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    print(f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} processors, as {who}.")
    print("Times are medians.", *(f"Not measured: {line}." for line in absent))
    print(f"\n{render(rows)}")


if __name__ == "__main__":
    sys.exit(main())
