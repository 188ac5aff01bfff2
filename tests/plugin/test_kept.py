"""Kept sandboxes: what the command lists, opens a shell in, and removes, and how many there are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.needs("overlay-on-host")

COMMAND = [sys.executable, "-c", "import sys; from pytest_sandbox.cli import main; sys.exit(main())"]
SUITE = """
import os, pytest

@pytest.mark.sandbox
def test_inside():
    with open("/etc/clue", "w") as file:
        file.write("the butler")
    os.unlink("/etc/passwd")
    os.mkdir("/tmp/own")
    assert False

def test_driven(sandbox):
    sandbox.run("rm -rf /etc/skel; mkdir /etc/skel; echo hat > /etc/skel/clue")
    assert False

@pytest.mark.sandbox
def test_passes():
    pass
"""
ARCHIVE = """
from pytest_sandbox import Image
import pytest

@pytest.mark.sandbox(image=Image.archive("base"), hostname="manor")
def test_archive(sandbox):
    sandbox.write_text("/clue", "the butler")
    assert False
"""


def command(*words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], input=said, capture_output=True, text=True, check=False, timeout=60)


def names() -> list[str]:
    return [line.split()[0] for line in command("ps").stdout.splitlines()[1:]]


def shown_commands(result: pytest.RunResult) -> dict[str, str]:
    lines = [line.partition(": ") for line in result.outlines if "pytest-sandbox shell " in line]
    return {test.rpartition("::")[2]: rest.split()[-1] for test, _, rest in lines}


def test_a_shell_opens_where_a_failed_test_has_ended(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTEST_SANDBOX_HOME")
    result = run(SUITE, "--sandbox-keep=failed", "-o", f"sandbox_store={tmp_path / 'store'}")
    monkeypatch.setenv("PYTEST_SANDBOX_HOME", str(tmp_path / "store"))
    shown = shown_commands(result)
    assert sorted(shown) == ["test_driven", "test_inside"]
    result.stdout.fnmatch_lines([f"*::test_inside: PYTEST_SANDBOX_HOME={tmp_path}/store pytest-sandbox shell *"])
    listed = command("ps").stdout
    assert "the host, test_a_shell_opens_where_a_failed_test_has_ended.py::test_inside\n" in listed
    assert "test_passes" not in listed

    said = command(
        "shell", shown["test_inside"], said="cat /etc/clue; ls /etc/passwd; [ -d /tmp/own ] && echo ow''n; exit 7\n"
    )
    assert (said.returncode, said.stderr) == (7, "")
    assert "\nthe butler" in said.stdout
    assert "'/etc/passwd': No such file" in said.stdout
    assert "\nown\n" in said.stdout
    said = command(
        "shell", shown["test_driven"], said="cat /etc/skel/*; ls -A /etc/skel | wc -l; rm -r /etc/skel; exit\n"
    )
    assert "\nhat\n1\n" in said.stdout
    # It is a copy that the shell had.
    again = command("shell", shown["test_driven"], said="cat /etc/skel/clue; exit\n")
    assert "\nhat\n" in again.stdout


@pytest.mark.needs("static-busybox")
def test_what_is_kept_of_an_archive_is_opened_on_it(run: Run, pytester: pytest.Pytester) -> None:
    base = pytester.mkdir("base")
    (base / "bin").mkdir()
    shutil.copy("/bin/busybox", base / "bin" / "sh")
    (name,) = shown_commands(run(ARCHIVE, "--sandbox-keep=all")).values()
    said = command("shell", name, said="read at < /etc/hostname; read clue < /clue; echo $clue at $at; exit\n")
    assert "the butler at manor" in said.stdout


def test_those_of_the_last_three_runs_are_kept(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    options = ("--sandbox-keep=failed", "-k", "driven")
    kept = [list(shown_commands(pytester.runpytest_subprocess(*options)).values()) for _ in range(4)]
    assert names() == kept[1] + kept[2] + kept[3]


def test_what_is_removed_is_gone(run: Run, runs: Path) -> None:
    first, second = shown_commands(run(SUITE, "--sandbox-keep=failed", "-n", "2")).values()
    assert command("rm", first).returncode == 0
    assert names() == [second]
    refused = command("rm", first)
    assert refused.returncode == 1
    assert f"no sandbox is kept as '{first}' in " in refused.stderr
    assert "hint: pytest-sandbox ps lists those that are" in refused.stderr
    assert command("rm", "--all").returncode == 0
    assert names() == []
    assert os.listdir(runs.parent / "kept") == []
    assert command("rm").returncode == 2


@pytest.mark.needs("root")
def test_what_cannot_be_kept_is_said_with_the_mend(pytester: pytest.Pytester, runs: Path) -> None:
    pytester.makepyfile(SUITE)
    for name in ("lower", "upper", "work", "seen"):
        pytester.mkdir(name)
    mount = "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work seen"
    inner = f"{mount} && PYTEST_SANDBOX_HOME=$PWD/seen exec {sys.executable} -m pytest --sandbox-keep=all"
    result = pytester.run("unshare", "--mount", "sh", "-c", inner)
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(["*cannot be kept in */seen: overlayfs *", "*hint: *PYTEST_SANDBOX_HOME: *"])
