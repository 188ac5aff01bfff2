"""Layers of many members."""

from __future__ import annotations

import io
import tarfile
import time

import pytest

from tests.kernel.layers.overlays import applied, in_private_mounts

pytestmark = pytest.mark.needs("overlayfs")


def test_a_hundred_thousand_members_are_applied_in_seconds() -> None:
    def apply_many(base: str) -> float:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for number in range(100_000):
                tar.addfile(tarfile.TarInfo(f"{number % 100}/{'.wh.' if number % 10 == 0 else ''}{number}"))
        began = time.process_time()
        applied(base, "many", stream.getvalue(), (), user=True)
        return time.process_time() - began

    assert in_private_mounts(apply_many, as_user=True) < 60
