"""What README and docs/ show can be written so: the Python is carried out, and the command takes the words."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pytest_sandbox.cli.commands import parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_can_be_carried_out(page: Path) -> None:
    code = "\n".join(["import os, subprocess, pytest", "from pytest_sandbox import Image", *blocks(page, "python")])
    # What opens an engine is for readers to run: declarations are made, and tests defined.
    lines = re.sub(r"^(with Engine\.open\(.*)$", r"def shown():\n  \1", code, flags=re.MULTILINE)
    exec(compile(lines, page.name, "exec"), {"__name__": page.stem})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_taken(page: Path) -> None:
    lines = [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    for line in lines:
        program, *words = shlex.split(line)
        if program == "pytest-sandbox":
            parser().parse_args(words)
