"""What an installation holds."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest_sandbox
import pytest_sandbox_runtime

RUNTIME = Path(pytest_sandbox_runtime.__file__).parent


def test_the_plugin_and_the_command_are_registered() -> None:
    points = importlib.metadata.distribution("pytest-sandbox").entry_points
    assert {(point.group, point.name) for point in points} == {
        ("pytest11", "sandbox"),
        ("console_scripts", "pytest-sandbox"),
        ("tox", "sandbox"),
    }


def test_both_packages_say_that_they_are_typed() -> None:
    assert (RUNTIME / "py.typed").exists()
    assert (Path(pytest_sandbox.__file__).parent / "py.typed").exists()


def test_the_engine_imports_where_pytest_cannot() -> None:
    code = "import sys; sys.modules['pytest'] = None; from pytest_sandbox_runtime import Engine, Sandbox, Image"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_supervisor_imports_neither_typing_nor_dataclasses() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(RUNTIME.parent)!r}); import pytest_sandbox_runtime.supervisor.server; "
        "print({'typing', 'dataclasses', 'enum', 're', 'socket', 'subprocess', 'pathlib', 'json'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "set()"


def test_only_its_own_plugin_imports_tox() -> None:
    package = Path(pytest_sandbox.__file__).parent
    for path in {*package.rglob("*.py"), *RUNTIME.rglob("*.py")} - {*(package / "tox").rglob("*.py")}:
        assert not any(name == "tox" or name.startswith(("tox.", "pytest_sandbox.tox")) for name in imported(path)), (
            path
        )


def test_imports_run_one_way() -> None:
    """The kernel's wrappers import the standard library only, and nothing in the engine imports pytest."""
    for path in RUNTIME.rglob("*.py"):
        for name in imported(path):
            assert not name.startswith(("pytest.", "_pytest", "pytest_sandbox.")), path
            assert name != "pytest", path
            if path.parent.name == "kernel":
                assert not name.startswith("pytest_sandbox_runtime.") or ".kernel" in name, path


def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.append(node.module)
    return names
