"""A layer is always the same bytes, whenever, wherever and by whichever Python it is written."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_sandbox_runtime.images.layer import Identities, write_layer
from tests.unit.layers.written import layer_of, make_old, own, small_tree

# Not to be changed: images that were built before are to be found again.
KNOWN = "sha256:aa993dfbc270a5473023542a4c71a9e3c46bd81b1ed7e834bfdd605055af75fe"
OTHER_PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.1[0-9].*/bin/python"))


def test_neither_the_order_of_making_nor_the_time_nor_the_place_counts(tmp_path: Path) -> None:
    layers = []
    for number in range(2):
        root = tmp_path / f"place-{number}" / ("deeper" * number) / "root"
        root.mkdir(parents=True)
        for name in sorted("abcdefgh", reverse=bool(number)):
            (root / name).write_text(name)
            os.utime(root / name, (2e9 + number, 2e9 + number))
        layers.append(layer_of(root, ()))
    assert layers[0] == layers[1]


PROGRAM = """
import io, sys
sys.path[:0] = {path!r}
from pytest_sandbox_runtime.images.layer import Identities, write_layer
print(write_layer({upper!r}, io.BytesIO(), lowers=(), identities=Identities(*{identities!r})).diff_id)
"""


@pytest.mark.parametrize("python", [sys.executable, *OTHER_PYTHONS])
def test_each_python_writes_the_same_bytes(python: str, upper: Path) -> None:
    small_tree(upper)
    (upper / ("long" * 40)).write_text("x")
    (upper / os.fsdecode(b"\xe9")).touch()
    os.setxattr(upper / "etc/hosts", "user.note", b"\xff")
    make_old(upper)
    runtime = str(Path(write_layer.__code__.co_filename).parents[3])
    identities = tuple(own(Identities()))
    code = PROGRAM.format(path=[runtime], upper=str(upper), identities=identities)
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == KNOWN
    assert f"sha256:{hashlib.sha256(layer_of(upper, ())).hexdigest()}" == KNOWN
