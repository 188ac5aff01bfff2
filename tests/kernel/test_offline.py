"""Offline: what the store has is used, and whatever else is an error that names it; nothing is asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox.cli import main
from pytest_sandbox_runtime import Image
from pytest_sandbox_runtime.errors import OfflineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kernel.conftest import Bench

pytestmark = pytest.mark.needs("overlayfs", "static-busybox")
# Discard's port on loopback, where nobody listens.
NOBODY = "127.0.0.1:9"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Image.pull(f"{NOBODY}/team/web:1"), f"{NOBODY}/team/web:1 is not in the store"),
        (Image.pull(f"{NOBODY}/team/web"), f"{NOBODY}/team/web:latest is not in the store"),
        (Image.debian("bookworm", packages=["no-such-package"]), "Image.debian('bookworm') is not in the store"),
    ],
)
def test_a_base_that_is_not_there_is_named(open_bench: Callable[..., Bench], image: Image, said: str) -> None:
    with pytest.raises(OfflineError) as caught:
        open_bench(offline=True).digest(image)
    assert said in caught.value.message
    assert caught.value.message.endswith(", and this run is offline")
    assert "once with the network" in caught.value.hint


def test_a_step_with_the_network_is_not_made(open_bench: Callable[..., Bench], base: Image, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM base\nADD http://{NOBODY}/file /file\n")
    for image, said in (
        (base.run("true", network="host"), "step 1/1 run('true', network='host') is not in the store and has"),
        (Image.dockerfile(tmp_path, contexts={"base": base}), "Dockerfile:2: ADD: step 1/1 "),
    ):
        with pytest.raises(OfflineError) as caught:
            open_bench(offline=True).digest(image)
        assert said in caught.value.message


def test_what_is_there_and_what_needs_no_network_is_had(open_bench: Callable[..., Bench], base: Image) -> None:
    web = base.run("echo web > /web", network="host")
    digest = open_bench().digest(web)
    offline = open_bench(offline=True)
    assert offline.digest(web) == digest
    assert offline.printed(web.run("echo more > /more"), "cat /web /more") == "web\nmore\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pull", f"{NOBODY}/web"), f"{NOBODY}/web:latest is not in the store, and this run is offline"),
        (
            ("search-tags", f"{NOBODY}/web"),
            f"nobody can be asked for the tags of {NOBODY}/web, and this run is offline",
        ),
        (("push", "base", f"{NOBODY}/web"), "base:latest cannot be pushed, and this run is offline"),
        (("run", "--image", f"{NOBODY}/web", "true"), f"{NOBODY}/web:latest is not in the store, and this run is"),
    ],
)
def test_the_command_is_offline_where_the_variable_says_so(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    open_bench: Callable[..., Bench],
    base: Image,
    words: tuple[str, ...],
    said: str,
) -> None:
    bench = open_bench()
    bench.engine.images.build(base, tag="base")
    monkeypatch.setenv("PYTEST_SANDBOX_HOME", os.path.dirname(os.path.dirname(bench.engine.run_directory)))
    monkeypatch.setenv("PYTEST_SANDBOX_OFFLINE", "1")
    assert main(words) == 1
    assert capsys.readouterr().err.startswith(f"pytest-sandbox: {said}")
