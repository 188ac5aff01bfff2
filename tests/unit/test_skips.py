"""Skips come from one table, so that CI can tell what its host lacks from what was forgotten."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = sorted(path for path in TESTS.rglob("*.py") if path.name != "conftest.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_skips_by_itself(path: Path) -> None:
    called = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    skipping = [node for node in called if ast.unparse(node.func).endswith((".skip", ".skipif", ".importorskip"))]
    # What pytest's own version offers is no matter of the host.
    assert [node.lineno for node in skipping if "version_tuple" not in ast.unparse(node)] == []
