"""docs/compose.md has a row for every key that there is."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "compose.md").read_text(encoding="utf-8")
SCHEMA = json.loads((files("pytest_sandbox_runtime.compose") / "compose-spec.json").read_text(encoding="utf-8"))
SERVICE = SCHEMA["definitions"]["service"]["properties"]
BUILD = SERVICE["build"]["oneOf"][1]["properties"]


def rows(page: str) -> set[str]:
    first = [line.split("|")[1] for line in page.splitlines() if line.startswith("|")]
    return {key for cell in first for key in re.findall(r"`([a-z0-9_]+)`", cell)}


@pytest.mark.parametrize(
    ("begin", "keys"),
    [
        ("## Top level", SCHEMA["properties"]),
        ("| network | here |", SCHEMA["definitions"]["network"]["properties"]),
        ("| volume | here |", SCHEMA["definitions"]["volume"]["properties"]),
        ("## Services", SERVICE),
        ("| build | here |", BUILD),
        ("| deploy | here |", SCHEMA["definitions"]["deployment"]["properties"]),
    ],
)
def test_every_key_has_a_row(begin: str, keys: dict[str, object]) -> None:
    assert set(keys) - rows(PAGE.partition(begin)[2]) == set()
