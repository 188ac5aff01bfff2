"""Confined as root, and in a user namespace."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.confinement.confined import become_user_with_namespace, stay_root


@pytest.fixture(
    params=[
        pytest.param(stay_root, marks=pytest.mark.needs("root"), id="root"),
        pytest.param(become_user_with_namespace, marks=pytest.mark.needs("user-namespaces"), id="user-namespace"),
    ]
)
def enter(request: pytest.FixtureRequest) -> Any:
    return request.param
