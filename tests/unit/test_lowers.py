"""The lower directories of an overlay as one tree."""

from __future__ import annotations

import cProfile
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.lowers import MergedTree

if TYPE_CHECKING:
    from pathlib import Path

DEPTH = 14


def calls_of_looking_up(tree: MergedTree, name: str) -> int:
    with cProfile.Profile() as profile:
        assert tree.seen(name) is not None
    return sum(entry.callcount for entry in profile.getstats())


def test_a_look_up_twice_as_deep_costs_twice_as_much(tmp_path: Path) -> None:
    deep = "/".join("d" * DEPTH)
    (tmp_path / "lower" / deep).mkdir(parents=True)
    (tmp_path / "upper").mkdir()
    tree = MergedTree((str(tmp_path / "upper"), str(tmp_path / "lower")))
    half = calls_of_looking_up(tree, "/".join("d" * (DEPTH // 2)))
    assert calls_of_looking_up(tree, deep) < 3 * half


def test_nothing_is_seen_below_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "lower/d").mkdir(parents=True)
    (tmp_path / "lower/d/file").touch()
    (tmp_path / "upper/d").touch()
    tree = MergedTree((str(tmp_path / "upper"), str(tmp_path / "lower")))
    assert tree.seen("d/file") is None
    assert tree.seen("d/file/deeper") is None
    assert tree.seen("missing/file") is None
