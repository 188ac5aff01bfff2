"""Runs the test suites of other projects, plain and inside, and prints where the outcomes differ.

    python tests/third_party.py [--work DIR] [NAME ...]

Each comes as a source distribution from the package index, and has a virtual environment of its own. Exits with 1 where
an outcome of one test differs that is not explained in docs/inside.md.
"""

from __future__ import annotations

import argparse
import collections
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

HERE = Path(__file__).resolve().parent.parent
MODES = {
    "plain": (),
    "test": ("--sandbox",),
    "module": ("--sandbox=module",),
    "session": ("--sandbox=session",),
    "-n 2": ("--sandbox", "-n", "2"),
}


@dataclass(frozen=True)
class Project:
    """A source distribution, what its tests need beside it, and how they are run."""

    version: str
    kind: str
    needs: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    # Whether pytest-xdist can run it at all.
    has_workers: bool = True
    # Tests that differ, by the beginnings of their names, and for what reason.
    differs: dict[str, str] = field(default_factory=dict)


PROJECTS = {
    "more-itertools": Project("11.2.1", "pure Python, unittest classes"),
    "attrs": Project("26.1.0", "pure Python, hypothesis", ("hypothesis", "cloudpickle", "pympler")),
    "click": Project("8.5.1", "terminals, temporary files"),
    "sh": Project("2.4.0", "processes, pipes, signals", has_workers=False),
    "anyio": Project(
        "4.16.0",
        "asyncio, sockets on loopback",
        ("trio", "trustme", "psutil", "exceptiongroup", "pytest-mock", "pytest-timeout", "uvloop"),
    ),
    "MarkupSafe": Project("3.0.4", "C extension"),
    "msgpack": Project("1.2.4", "C extension"),
}


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="where environments are kept for the next time")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PROJECTS))
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = (words.work or Path(folder)).resolve()
        print("| project | " + " | ".join(MODES) + " |")
        print("|" + "---|" * (len(MODES) + 1))
        unexplained = [line for name in words.names or PROJECTS for line in compare(name, work)]
    print("", *unexplained, sep="\n")
    return 1 if unexplained else 0


def compare(name: str, work: Path) -> list[str]:
    """Print the row of one project, and return the tests whose outcome differs without an explanation."""
    project = PROJECTS[name]
    source, python = prepared(name, project, work)
    cells, lines = [], []
    plain: dict[str, str] = {}
    for mode, options in MODES.items():
        if "-n" in options and not project.has_workers:
            cells.append("-")
            continue
        began = time.monotonic()
        found = outcomes(source, python, (*project.args, *options))
        seconds = time.monotonic() - began
        plain = plain or found
        differing = {test for test in plain.keys() | found.keys() if plain.get(test) != found.get(test)}
        explained = {test for test in differing if any(test.startswith(start) for start in project.differs)}
        lines += [
            f"{name}, {mode}: {test}: {plain.get(test)} -> {found.get(test)}" for test in sorted(differing - explained)
        ]
        counts = collections.Counter(found.values())
        said = (
            ", ".join(f"{counts[word]} {word}" for word in sorted(counts))
            if mode == "plain"
            else f"{len(differing)} differ"
        )
        cells.append(f"{said} ({seconds:.1f} s)")
    print(f"| {name} {project.version}: {project.kind} | " + " | ".join(cells) + " |", flush=True)
    return lines


def prepared(name: str, project: Project, work: Path) -> tuple[Path, Path]:
    """Return where the source is, and an interpreter that has it installed."""
    place = work / name
    python = place / "venv" / "bin" / "python"
    if not (place / "source").exists():
        subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
        pip = (python, "-m", "pip", "-q", "--disable-pip-version-check")
        subprocess.run(
            [*pip, "download", "--no-deps", "--no-binary", name, "-d", place, f"{name}=={project.version}"],
            check=True,
        )
        (archive,) = place.glob("*.tar.gz")
        subprocess.run([*pip, "install", archive, HERE, "pytest-xdist", *project.needs], check=True)
        with tarfile.open(archive) as tar:
            tar.extractall(place / "source", filter="data")
    (source,) = (place / "source").iterdir()
    return source, python


def outcomes(source: Path, python: Path, options: tuple[str, ...]) -> dict[str, str]:
    """Return how each test has ended."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        argv: list[str | Path] = [
            python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report.name}",
            *options,
        ]
        with subprocess.Popen(argv, cwd=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            said, _ = process.communicate()
        try:
            root = ET.parse(report.name).getroot()
        except ET.ParseError:
            raise SystemExit(
                f"{source.name} {options}: there is no report\n{said.decode(errors='replace')[-3000:]}"
            ) from None
    found = {}
    for case in root.iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        ends = [child.tag if child.get("type") != "pytest.xfail" else "xfailed" for child in case]
        words = [word for word in ends if word in ("failure", "error", "skipped", "xfailed")]
        found[name] = "+".join(words) or "passed"
    return found


if __name__ == "__main__":
    sys.exit(main())
