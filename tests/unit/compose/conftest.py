"""Compose files as texts: each test is in an empty directory, so that messages have the file's bare name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.compose import load
from pytest_sandbox_runtime.errors import ComposeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import ComposeService, Project


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def read() -> Callable[..., Project]:
    """The project that texts are, merged in their order."""

    def read(*texts: str, **options: Any) -> Project:
        names = [f"compose{index or ''}.yaml" for index in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            Path(name).write_text(text, encoding="utf-8")
        return load(names, **{"environ": {}, "project_name": "test", **options})

    return read


@pytest.fixture
def service(read: Callable[..., Project]) -> Callable[..., ComposeService]:
    """The only service of a file, of which the text is what stands under its name."""

    def service(text: str, rest: str = "", **options: Any) -> ComposeService:
        return read(web(text) + rest, **options).service("web")

    return service


@pytest.fixture
def mistakes(read: Callable[..., Project]) -> Callable[..., str]:
    """What is said about texts that are wrong."""

    def mistakes(*texts: str, **options: Any) -> str:
        with pytest.raises(ComposeError) as caught:
            read(*texts, **options)
        return str(caught.value)

    return mistakes


@pytest.fixture
def mistake(mistakes: Callable[..., str]) -> Callable[..., str]:
    """What is said about a service of which the text is wrong, from its key on."""

    def mistake(text: str, rest: str = "", **options: Any) -> str:
        return mistakes(web(text) + rest, **options).split(" services.web.", 1)[-1]

    return mistake


def web(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    if not any(line.startswith(("image:", "build:")) for line in lines):
        lines.insert(0, "image: x")
    return "services:\n  web:\n" + "".join(f"    {line}\n" for line in lines)
