"""A pytest of its own for each suite, whose store holds nothing of its runs when it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.foreign import make_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., pytest.RunResult]

# Plugins that stand beside ours in the test environment: a suite loads those that it is about by their names.
NOT_LOADED = ("hypothesispytest", "anyio", "asyncio", "randomly", "rerunfailures", "timeout")


@pytest.fixture(autouse=True)
def alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was said to this run is said to those that tests start, nor do these load what they do not name."""
    if "pytester" in request.fixturenames:
        # It takes PYTEST_ADDOPTS away.
        request.getfixturevalue("pytester")
    for name in ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_SANDBOX_IMAGE", "PYTEST_SANDBOX_MISSING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"-p no:{name}" for name in NOT_LOADED))


@pytest.fixture
def runs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The directory of the store that holds one more for each run, as long as the run lasts."""
    monkeypatch.setenv("PYTEST_SANDBOX_HOME", str(tmp_path / "store"))
    directory = tmp_path / "store" / "runs"
    yield directory
    assert not directory.exists() or list(directory.iterdir()) == []


@pytest.fixture
def run(pytester: pytest.Pytester, runs: Path) -> Run:
    """Write a suite, where one is given, and run pytest on it in a process of its own."""

    def run_suite(source: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        return pytester.runpytest_subprocess(*options)

    return run_suite


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an image with Python and pytest."""
    return make_root(tmp_path_factory.mktemp("image") / "root")


@pytest.fixture(scope="session")
def empty_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an image with nothing in it."""
    root = tmp_path_factory.mktemp("empty") / "root"
    for directory in ("bin", "etc", "tmp"):
        (root / directory).mkdir(parents=True)
    return root
