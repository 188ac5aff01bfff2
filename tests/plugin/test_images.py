"""Images in a suite: what builds say, what is built again, and what a failed one ends with."""

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

pytestmark = pytest.mark.needs("overlayfs", "static-busybox")

SUITE = """
import pytest
from pytest_sandbox import Image

base = Image.archive("base.tar")

def test_before():
    pass

@pytest.mark.sandbox(image=base.run("echo one > /file; echo captured").run("echo two >> /file"))
def test_built(sandbox):
    print("a test's own")
    assert sandbox.read_text("/file") == "one\\ntwo\\n"

def test_after():
    pass
"""
BROKEN = """
import pytest
from pytest_sandbox import Image

broken = Image.archive("base.tar").run("echo before > /before").run("echo words; exit 3")

@pytest.mark.sandbox(image=broken)
def test_driven(sandbox):
    pass

def start(factory):
    return factory(image=broken)

def test_factory(sandbox_factory):
    start(sandbox_factory)
"""
DRIVEN = "def test_driven(sandbox):\n    assert sandbox.read_text('/mark') == {!r}\n"
STEPS = ["step 1/2 run('echo one > /file; echo captured')", "step 2/2 run('echo two >> /file')"]


@pytest.fixture(autouse=True)
def base(pytester: pytest.Pytester, busybox_tar: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tar that the suites' images start from."""
    monkeypatch.delenv("PYTEST_SANDBOX_NO_CACHE", raising=False)
    tar = pytester.path / "base.tar"
    shutil.copy(busybox_tar, tar)
    return tar


def steps_of(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("step ")]


def test_a_marked_test_gets_the_image_it_declares_and_steps_are_lines_of_their_own(run: Run) -> None:
    first = run(SUITE)
    first.assert_outcomes(passed=3)
    assert steps_of(first) == STEPS
    again = run(SUITE)
    again.assert_outcomes(passed=3)
    assert steps_of(again) == []


def test_the_lines_of_a_build_are_no_output_of_the_test(run: Run) -> None:
    result = run(SUITE.replace('== "one', '== "wrong'))
    result.assert_outcomes(passed=2, failed=1)
    assert steps_of(result) == STEPS
    captured = result.stdout.str().partition("Captured stdout call")[2]
    assert "a test's own" in captured
    assert "step 1/2" not in captured
    assert "Captured stdout setup" not in result.stdout.str()
    assert result.stderr.str() == ""


@pytest.mark.parametrize("options", [("-q",), ("-n2",)], ids=["quiet", "xdist"])
def test_nothing_is_said_where_nobody_listens(run: Run, options: tuple[str, ...]) -> None:
    result = run(SUITE, *options)
    result.assert_outcomes(passed=3)
    assert "step " not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("options", [(), ("-v",), ("-s",)], ids=["dots", "verbose", "uncaptured"])
def test_on_a_terminal_a_step_gets_its_time(pytester: pytest.Pytester, runs: Path, options: tuple[str, ...]) -> None:
    pytester.makepyfile(SUITE)
    lines = seen_on_a_terminal([sys.executable, "-m", "pytest", "-p", "no:randomly", *options])
    said = [line for line in lines if line.startswith("step ")]
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in said] == STEPS
    assert all(line.endswith(" s") for line in said)
    assert any("3 passed" in line for line in lines)


def seen_on_a_terminal(argv: list[str]) -> list[str]:
    master, slave = os.openpty()
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "COLUMNS": "100"}):
        os.close(slave)
        said = b""
        try:
            while more := os.read(master, 65536):
                said += more
        except OSError:
            pass  # how a terminal says that nobody has it open any more
    os.close(master)
    return said.decode().splitlines()


@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_rebuild_makes_each_layer_anew_once(run: Run, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    run(SUITE)
    if way == "variable":
        monkeypatch.setenv("PYTEST_SANDBOX_NO_CACHE", "1")
    result = run(SUITE, "--sandbox-explain", *(("--sandbox-rebuild",) if way == "option" else ()))
    result.assert_outcomes(passed=3)
    assert steps_of(result) == [f"{step}: everything is to be made anew" for step in STEPS]


def test_what_is_not_in_the_cache_is_explained(run: Run) -> None:
    run(SUITE)
    result = run(SUITE.replace("echo one", "echo uno").replace('"one', '"uno'), "--sandbox-explain")
    result.assert_outcomes(passed=3)
    assert [line.rpartition(": ")[2] for line in steps_of(result)] == [
        "it was never made with these words",
        "the layers below it have changed",
    ]


# What is said where


def mark(word: str) -> str:
    return DRIVEN.format(f"{word}\n")


@pytest.mark.parametrize(
    ("way", "word"), [("option", "app"), ("ini", "app/Dockerfile"), ("variable", "named:1"), ("option", "./app")]
)
def test_the_image_of_all_tests_is_said_in_the_words_of_the_command(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, way: str, word: str
) -> None:
    folder = pytester.mkdir("app")
    (folder / "Dockerfile").write_text("FROM scratch\nADD base.tar /\nRUN echo built > /mark\n")
    shutil.copy("base.tar", folder)
    if word == "named:1":
        name_it(folder)
    if way == "variable":
        monkeypatch.setenv("PYTEST_SANDBOX_IMAGE", word)
    options = {"option": ("--sandbox-image", word), "ini": ("-o", f"sandbox_image={word}"), "variable": ()}[way]
    run(mark("built"), *options).assert_outcomes(passed=1)


def name_it(folder: Path) -> None:
    from pytest_sandbox.cli import main

    assert main(["build", str(folder), "-t", "named:1", "-q"]) == 0


def test_a_name_that_no_image_has_is_told_with_those_there_are(run: Run, pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("app")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /mark\n")
    name_it(folder)
    result = run(mark("built"), "--sandbox-image=localhost:1/named:1")
    result.assert_outcomes(errors=1)
    lines = ["the store has no image localhost:1/named:1, and it cannot be pulled: *", "  hint: it has named:1; *"]
    result.stdout.fnmatch_lines(lines)


@pytest.mark.parametrize("options", [(), ("-n1",)], ids=["alone", "xdist"])
def test_a_build_that_fails_ends_in_the_users_own_words(run: Run, options: tuple[str, ...]) -> None:
    result = run(BROKEN, *options)
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at setup of test_driven*",
            "step 2/2 run('echo words; exit 3') failed: /bin/sh -c 'echo words; exit 3' ended with exit status 3",
            "words",
            "  hint: look around in the state before it: pytest-sandbox shell --image *",
            "*test_factory*",
            ">*factory(image=broken)",
            "E*BuildError: step 2/2 run('echo words; exit 3') failed: *",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_sandbox/*.py*")
    result.stdout.no_fnmatch_line("*pytest_sandbox_runtime/*.py*")


def test_the_hint_of_a_failed_build_opens_the_state_before_it(run: Run, runs: Path) -> None:
    hint = next(line for line in run(BROKEN).outlines if "hint: " in line).split()
    command = [sys.executable, "-c", "import sys; from pytest_sandbox.cli import main; sys.exit(main())"]
    words = hint[hint.index("pytest-sandbox") + 1 :]
    typed = "read word < /before; echo $word it was; exit 7\n"
    said = subprocess.run([*command, *words], input=typed, capture_output=True, text=True, check=False)
    assert said.returncode == 7
    assert "\nbefore it was" in said.stdout


def test_a_build_that_fails_is_no_reason_to_skip(run: Run) -> None:
    run(BROKEN, "-o", "sandbox_missing=skip").assert_outcomes(failed=1, errors=1)


def test_a_relative_store_lies_in_the_project(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nsandbox_store = .sandbox\n")
    monkeypatch.chdir(pytester.mkdir("below"))
    run(SUITE.replace('"base.tar"', '"../base.tar"'), "..").assert_outcomes(passed=3)
    assert (pytester.path / ".sandbox/images").is_dir()


def test_a_test_offline_names_the_image_that_is_not_there(run: Run) -> None:
    suite = "def test_driven(sandbox):\n    pass\n"
    result = run(suite, "--sandbox-offline", "--sandbox-image=localhost:9/web:1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at setup of test_driven*",
            "*localhost:9/web:1 is not in the store, and this run is offline",
            "*hint: once with the network: pytest-sandbox pull localhost:9/web:1",
        ]
    )
