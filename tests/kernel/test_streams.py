"""Much through a pipe, both ways: nothing is lost, nothing changes places, and the client holds none of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("overlay-on-host")

GIB = 1 << 30
# In a process of its own, as its peak of memory is to be the stream's. Each block has its number in it, and the
# checksum is one of the whole stream: it tells a loss and an exchange.
CLIENT = """
import json, os, sys, threading, zlib
from pytest_sandbox_runtime import PIPE, Engine, EngineSettings, SandboxSpec

SIZE, BLOCK = int(sys.argv[2]), 1 << 20
noise = os.urandom(BLOCK - 8)
sent = 0

def feed(stdin):
    global sent
    for number in range(SIZE // BLOCK):
        block = memoryview(number.to_bytes(8, "big") + noise)
        sent = zlib.crc32(block, sent)
        while block:
            block = block[stdin.write(block) :]
    stdin.close()

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))

with Engine.open(EngineSettings(store=sys.argv[1])) as engine, engine.create(SandboxSpec()) as sandbox:
    def through(command):
        received, size = 0, 0
        with sandbox.popen(command, stdin=PIPE) as process:
            feeder = threading.Thread(target=feed, args=(process.stdin,))
            feeder.start()
            while chunk := process.stdout.read(BLOCK):
                received, size = zlib.crc32(chunk, received), size + len(chunk)
            feeder.join()
            return process.wait(60), size, received

    with sandbox.popen(["true"], stdin=PIPE) as process:
        process.wait()
    before = peak()
    status, size, received = through(["cat"])
    print(json.dumps([status, size, received == sent, peak() - before]))
"""
# The same for what run is given: files go to the command as they are.
FILES = """
import json, sys
from pytest_sandbox_runtime import Engine, EngineSettings, SandboxSpec

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))

with Engine.open(EngineSettings(store=sys.argv[1])) as engine, engine.create(SandboxSpec()) as sandbox:
    sandbox.run(["true"])
    before = peak()
    with open(sys.argv[3], "rb") as source, open("/dev/null", "wb") as sink:
        sandbox.run(["cat"], input=source, stdout=sink, check=True)
        source.seek(0)
        counted = sandbox.run("wc -c", input=source, check=True).stdout
    print(json.dumps([int(counted), peak() - before]))
"""


def ask(client: str, *arguments: object) -> list[int]:
    command = [sys.executable, "-c", client, *map(str, arguments)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    told: list[int] = json.loads(said)
    return told


def test_a_gibibyte_goes_to_a_command_and_comes_back_whole_at_constant_memory(tmp_path: Path) -> None:
    status, size, is_same, growth = ask(CLIENT, tmp_path / "store", GIB)
    assert (status, size, is_same) == (0, GIB, True)
    assert growth < 16 << 20


def test_a_gibibyte_in_a_file_is_a_commands_input_at_constant_memory(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(GIB)
    counted, growth = ask(FILES, tmp_path / "store", GIB, tmp_path / "sparse")
    assert counted == GIB
    assert growth < 16 << 20
