"""PYTEST_DONT_REWRITE. Dockerfiles read as images, by the rules of BuildKit.

lexer -> statements; instructions -> their form; evaluation -> layers; reader -> stages. ignore has .dockerignore.
"""

from __future__ import annotations

from pytest_sandbox_runtime.images.dockerfile.ignore import Ignore
from pytest_sandbox_runtime.images.dockerfile.reader import read, read_text, resolve

__all__ = ["Ignore", "read", "read_text", "resolve"]
