"""PYTEST_DONT_REWRITE. The packages that only compose files need, imported when one is read."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from types import ModuleType


def imported(name: str) -> ModuleType:
    """Return the module ``name``; raises UnsupportedError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = {"yaml": "PyYAML"}.get(name, name)
        msg = f"reading compose files needs {package}, which is not installed"
        raise UnsupportedError(msg, hint="pip install pytest-sandbox[compose]") from error
