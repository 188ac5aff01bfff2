"""Images that are loaded and unpacked: each time other ones, as what is there is not loaded again."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING

from benchmarks.clock import check
from pytest_sandbox_runtime.images.archive import load
from pytest_sandbox_runtime.images.export import save
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from pathlib import Path

_MAIN = "import sys; from pytest_sandbox.cli import main; sys.exit(main())"


def make_archives(base: Path, where: Path, count: int) -> list[Path]:
    """Return Docker archives of the root file system's tar ``base``, each with one file that differs."""
    where.mkdir()
    archives = []
    with Store(str(where / "made")) as store:
        for number in range(count):
            tar = shutil.copy(base, where / f"root{number}.tar")
            with tarfile.open(tar, "a") as file:
                header = tarfile.TarInfo(f"{number}")
                header.size = 1
                file.addfile(header, io.BytesIO(b"x"))
            ((_, image),) = load(store, str(tar))
            archives.append(where / f"image{number}.tar")
            save(store.images, [(Reference.parse(f"bench-{number}"), image)], str(archives[-1]), format="docker")
            os.unlink(tar)
    return archives


def times_of_docker(client: tuple[str, ...], archives: list[Path]) -> list[float]:
    """Return the seconds of ``docker load`` for each of ``archives``."""
    times = []
    for archive in archives:
        began = time.perf_counter()
        check((*client, "load", "--quiet", "--input", str(archive)))
        times.append(time.perf_counter() - began)
    return times


def times_of_ours(archives: list[Path], store: Path) -> tuple[list[float], int]:
    """Return the seconds of ``pytest-sandbox load`` for each of ``archives``, and the most KiB of memory."""
    times, memory = [], 0
    environment = {**os.environ, "PYTEST_SANDBOX_HOME": str(store)}
    program = (sys.executable, "-c", _MAIN, "load", "--quiet", "--input")
    for archive in archives:
        began = time.perf_counter()
        with subprocess.Popen((*program, str(archive)), env=environment, stdout=subprocess.DEVNULL) as child:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        times.append(time.perf_counter() - began)
        memory = max(memory, usage.ru_maxrss)
        if child.returncode:
            raise SystemExit(f"pytest-sandbox load {archive} ended with {child.returncode}")
    return times, memory
