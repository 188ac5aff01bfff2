"""What a build has printed is printed again only while nothing that it has read looks otherwise."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox.cli import answers
from pytest_sandbox.cli.answers import recall, remember
from pytest_sandbox_runtime.images.pruning import prune
from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

ARGV = ["build", "app"]
LONG_AGO = 10**9


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A context beside a store, of files that have been there for long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_SANDBOX_HOME", str(tmp_path / "store"))
    app = tmp_path / "app"
    (app / "src/deep").mkdir(parents=True)
    (app / "Dockerfile").write_text("FROM scratch\n")
    (app / "src/deep/file").write_text("one")
    (app / "link").symlink_to("src")
    (app / "other").symlink_to("src/deep")
    (tmp_path / "store/images").mkdir(parents=True)
    return app


def answered(read: list[str] | None = None, argv: list[str] = ARGV, began: int | None = None) -> str | None:
    later = time.time_ns() + LONG_AGO
    remember(argv, later if began is None else began, read or ["app", "app.dockerignore"], "sha256:1")
    return recall(argv)


def test_an_answer_is_given_again_to_the_same_question_only(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recall(ARGV) is None
    assert answered() == "sha256:1"
    assert recall(["build", "other"]) is None
    monkeypatch.setenv("PYTEST_SANDBOX_NO_CACHE", "1")
    assert recall(ARGV) is None
    monkeypatch.delenv("PYTEST_SANDBOX_NO_CACHE")
    monkeypatch.chdir(app)
    assert recall(ARGV) is None


def rewrite(app: Path) -> None:
    """Same size, same time of change as far as anybody can set it."""
    file = app / "src/deep/file"
    before = file.stat()
    file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "another content": rewrite,
    "a mode": lambda app: (app / "src/deep/file").chmod(0o755),
    "a new file": lambda app: (app / "src/deep/new").touch(),
    "a file that went": lambda app: (app / "src/deep/file").unlink(),
    "a link to elsewhere": lambda app: os.replace(app / "other", app / "link"),
    "an ignore file": lambda app: (app.parent / "app.dockerignore").touch(),
    "the images": lambda app: (app.parent / "store/images/index.json").touch(),
    "no context": lambda app: app.rename(app.parent / "moved"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_changes_ends_it(app: Path, change: Callable[[Path], object]) -> None:
    assert answered() == "sha256:1"
    change(app)
    assert recall(ARGV) is None


def test_a_context_behind_a_link_is_looked_at(app: Path) -> None:
    (app.parent / "way").symlink_to("app")
    assert answered(["way"]) == "sha256:1"
    (app / "new").touch()
    assert recall(ARGV) is None


def test_what_may_have_changed_since_it_was_read_is_not_remembered(app: Path) -> None:
    assert answered(began=(app / "src/deep/file").stat().st_ctime_ns + 10**6) is None


def test_too_much_to_look_at_is_not_remembered(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_MOST", 3)
    assert answered() is None


def test_an_answer_is_none_after_an_hour(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answered() == "sha256:1"
    later = time.time_ns() + 3601 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert recall(ARGV) is None


def test_pruning_ends_all_answers(app: Path) -> None:
    assert answered() == "sha256:1"
    with Store(str(app.parent / "store")) as store:
        prune(store)
    assert recall(ARGV) is None


def test_a_damaged_answer_is_none(app: Path) -> None:
    assert answered() == "sha256:1"
    (file,) = Path(app.parent, "store/answers").iterdir()
    file.write_bytes(file.read_bytes()[:20])
    assert recall(ARGV) is None


def test_an_answer_that_cannot_be_written_is_none(app: Path) -> None:
    (app.parent / "store/answers").touch()
    assert answered() is None
