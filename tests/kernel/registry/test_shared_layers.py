"""Layers that one machine has built, and another pulls: two stores, and Debian's docker-registry between them."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox.cli import main
from pytest_sandbox_runtime.errors import ImageError, OfflineError, RegistryUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_sandbox_runtime import Image
    from tests.kernel.conftest import Bench
    from tests.kernel.registry.proxies import Proxy
    from tests.kernel.registry.registries import Registry

    OpenBench = Callable[..., Bench]

pytestmark = pytest.mark.needs("overlayfs", "static-busybox", "docker-registry", "skopeo")
NOBODY = "127.0.0.1:9/cache"
UPLOADS = r"POST /v2/.*/blobs/uploads/"


@pytest.fixture
def cache(registry: Registry, request: pytest.FixtureRequest) -> str:
    return f"{registry.host}/cache/{abs(hash(request.node.name))}"


@pytest.fixture
def web(base: Image) -> Image:
    return base.run("echo one > /one").file("/two", "two\n").run("rm /one; cat /two > /three")


def test_what_one_machine_has_built_another_pulls(open_bench: OpenBench, cache: str, web: Image) -> None:
    first = open_bench("first", cache_to=cache)
    digest = first.digest(web)
    second = open_bench("second", cache_from=(NOBODY, cache), cache_to=None)
    assert second.digest(web) == digest
    told = [line for line in second.said if NOBODY not in line]
    assert told == [f"{line}: from {cache}" for line in first.said]
    assert second.printed(web, "ls /one || cat /two /three") == "two\ntwo\n"
    assert open_bench("second").digest(web) == digest


def test_layers_are_sent_once(open_bench: OpenBench, proxy: Proxy, cache: str, web: Image) -> None:
    target = f"{proxy.host}/{cache.partition('/')[2]}"
    open_bench("first").digest(web)
    for _ in range(2):
        open_bench("first", cache_to=target).digest(web)
    assert len(proxy.requests(UPLOADS)) == 2 * 3, "three layers, each with its config"
    more = web.run("true > /more")
    open_bench("second", cache_from=(target,), cache_to=target).digest(more)
    assert len(proxy.requests(UPLOADS)) == 2 * 4


def test_a_layer_that_is_another_is_made_instead(
    open_bench: OpenBench, registry: Registry, cache: str, web: Image
) -> None:
    digest = open_bench("first", cache_to=cache).digest(web)
    said = subprocess.run(
        ["skopeo", "list-tags", "--tls-verify=false", f"docker://{cache}"], check=True, capture_output=True, text=True
    )
    one, *others = sorted(re.findall(r"layer-[0-9a-f]{64}", said.stdout))
    for other in others:
        argv = [
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            f"docker://{cache}:{one}",
            f"docker://{cache}:{other}",
        ]
        subprocess.run(["skopeo", "copy", "--quiet", *argv], check=True)
    second = open_bench("second", cache_from=(cache,))
    assert second.digest(web) == digest
    refused = [line for line in second.said if line.endswith("is not the layer that its tag says")]
    assert len(refused) == len(others) == 2


def test_a_source_that_does_not_answer_is_told_once_and_a_target_is_an_error(open_bench: OpenBench, web: Image) -> None:
    bench = open_bench("first", cache_from=(NOBODY,))
    bench.digest(web)
    (told,) = [line for line in bench.said if NOBODY in line]
    assert told.startswith(f"step 1/3 run('echo one > /one'): not from {NOBODY}: ")
    with pytest.raises(RegistryUnreachableError, match="127.0.0.1:9"):
        open_bench("first", cache_to=NOBODY).digest(web)
    with pytest.raises(OfflineError, match=f"layers cannot be sent to {NOBODY}, and this run is offline"):
        open_bench("first", cache_to=NOBODY, offline=True).digest(web)
    with pytest.raises(ImageError, match="'A B' is no reference of an image"):
        open_bench("second", cache_from=("A B",)).digest(web)


def test_a_rebuild_looks_nowhere(open_bench: OpenBench, registry: Registry, cache: str, web: Image) -> None:
    open_bench("first", cache_to=cache).digest(web)
    bench = open_bench("second", cache_from=(cache,), rebuild=True)
    bench.digest(web)
    assert not [line for line in bench.said if cache in line]


def test_the_command_shares_layers(
    tmp_path: Path, cache: str, base: Image, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "image.py").write_text(
        f"from pytest_sandbox import Image\nweb = Image.archive({base.path!r}).run('echo web > /web')\n"
    )
    words = ("build", f"{tmp_path}/image.py:web")
    monkeypatch.setenv("PYTEST_SANDBOX_HOME", str(tmp_path / "one"))
    assert main((*words, "--cache-to", cache)) == 0
    first = capsys.readouterr()
    monkeypatch.setenv("PYTEST_SANDBOX_HOME", str(tmp_path / "two"))
    monkeypatch.setenv("PYTEST_SANDBOX_CACHE_FROM", cache)
    assert main(words) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert again.err == f"step 1/1 run('echo web > /web'): from {cache}{os.linesep}"
