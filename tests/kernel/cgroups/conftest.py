"""The hierarchy of this machine, and groups in it that go with the test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.cgroups import Group, Run, find, v2
from pytest_sandbox_runtime.cgroups.convert import locate, parse_memberships, parse_mountinfo
from pytest_sandbox_runtime.cgroups.files import read
from tests.kernel.cgroups.members import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.cgroups import Hierarchy


@pytest.fixture(scope="session")
def hierarchy() -> Hierarchy:
    return find().prepare()


@pytest.fixture
def run(hierarchy: Hierarchy) -> Iterator[Run]:
    run = hierarchy.create_run(f"test-{os.getpid()}-{next(NAMES)}")
    yield run
    run.remove()


@pytest.fixture
def unified() -> Iterator[Group]:
    """A group of version 2 below this process's own, whatever controllers that has."""
    mounts = [mounted for mounted in parse_mountinfo(read("/proc/self/mountinfo")) if mounted.version == v2.NUMBER]
    path = parse_memberships(read("/proc/self/cgroup")).get("", "/")
    own = locate(mounts[0], path)
    assert own is not None
    group = Group()
    group.add(v2.NUMBER, f"{v2.base_of(own)}/test-{os.getpid()}-{next(NAMES)}")
    yield group
    group.remove()
