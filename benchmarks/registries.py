"""A registry on loopback, and what comes from it and goes to it: an image of five layers, 300 MB."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from typing import IO, TYPE_CHECKING

from benchmarks.clock import check, times_of
from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.images import Images
from pytest_sandbox_runtime.images.manifest import Descriptor, ImageConfig, layer_type
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAIN = """
import sys
from pytest_sandbox.cli import main
status = main()
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(status)
"""
_LAYERS = 5
_MEGABYTES = 60
NAME = "bench:1"


@contextlib.contextmanager
def registry(place: Path) -> Iterator[str]:
    """Run docker-registry with its data in ``place``; yields where it listens."""
    place.mkdir()
    config = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(place / "data")}},
        "http": {"addr": "127.0.0.1:0", "secret": "x"},
    }
    (place / "config.yml").write_text(json.dumps(config))
    argv = ("docker-registry", "serve", str(place / "config.yml"))
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address = _address(process.stderr)
            # Of a pipe that is full it would wait to be read.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield address
        finally:
            process.terminate()
    shutil.rmtree(place)


def _address(said: IO[str]) -> str:
    for line in said:
        if found := re.search(r"listening on ([0-9.]+:\d+)", line):
            return found[1]
    raise SystemExit("docker-registry did not start")


def make_image(where: Path) -> Store:
    """Return a store with the image, half of which can be packed."""
    chance = random.Random(0)
    store = Store(str(where))
    layers, diff_ids = [], []
    for number in range(_LAYERS):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            for name in range(_MEGABYTES):
                header = tarfile.TarInfo(f"bin/{number}-{name}")
                header.size = 1 << 20
                archive.addfile(header, io.BytesIO(chance.randbytes(1 << 19) + bytes(1 << 19)))
        diff_ids.append(digest_of(tar.getvalue()))
        packed = io.BytesIO(gzip.compress(tar.getvalue(), 1, mtime=0))
        layers.append(Descriptor(layer_type("gzip"), *store.images.add(packed, store.lease)))
    image = store.add_image(ImageConfig(diff_ids=tuple(diff_ids)), layers)
    store.images.tag(Reference.parse(NAME), image, store.lease)
    return store


def time_of_skopeo(store: Store, host: str) -> float:
    """Return the seconds of ``skopeo copy`` to the registry, where nothing is."""
    source = f"oci:{store.images.path}:{Reference.parse(NAME).canonical}"
    options = ("--quiet", "--preserve-digests", "--dest-tls-verify=false")
    return _time(("skopeo", "copy", *options, source, f"docker://{host}/{NAME}"))


def time_of_ours(store: Path, *words: str) -> tuple[float, int]:
    """Return the seconds of a whole command, and the most kB of memory."""
    environment = {**os.environ, "PYTEST_SANDBOX_HOME": str(store)}
    began = time.perf_counter()
    done = subprocess.run((sys.executable, "-c", _MAIN, *words), env=environment, capture_output=True, check=True)
    return time.perf_counter() - began, int(done.stderr.split()[-2])


def times_of_checking(store: Path, name: str, count: int) -> list[float]:
    """Return the seconds of pulling what is there."""
    with Store(str(store)) as opened:
        images = Images(opened)
        return times_of(lambda: images.pull(name), count)


def time_of_docker(client: tuple[str, ...], name: str) -> float:
    """Return the seconds of ``docker pull``, after which nothing of it is left."""
    took = _time((*client, "pull", "--quiet", name))
    check((*client, "rmi", name))
    return took


def time_of_podman(where: Path, name: str) -> float:
    """Return the seconds of ``podman pull``, after which nothing of it is left."""
    podman = ("podman", f"--root={where}/podman", f"--runroot={where}/run")
    took = _time((*podman, "pull", "--quiet", "--tls-verify=false", name))
    check((*podman, "rmi", name))
    return took


def _time(argv: tuple[str, ...]) -> float:
    began = time.perf_counter()
    check(argv)
    return time.perf_counter() - began
