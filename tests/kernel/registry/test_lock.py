"""sandbox.lock: what a suite's names of images meant when it was written is what they mean, whatever is pushed since."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_sandbox_runtime.images.manifest import Descriptor
    from tests.kernel.registry.images import Pushed
    from tests.kernel.registry.registries import Registry

    Push = Callable[..., Pushed]
    PutImage = Callable[..., Descriptor]
    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.needs("overlayfs", "docker-registry", "skopeo")
HEAD = "# What the images of this suite are. pytest --sandbox-lock adds to it, and --sandbox-lock=update renews it.\n"
SUITE = """
import pytest
from pytest_sandbox import Image

@pytest.mark.sandbox(image=Image.pull("{name}"))
def test_{test}(sandbox):
    print("{test} has", *sorted(sandbox.files.listdir("/data")))
"""


@pytest.fixture
def name(registry: Registry, request: pytest.FixtureRequest) -> str:
    return f"{registry.host}/lock/{abs(hash(request.node.name))}:1"


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run pytest in a process of its own, with a store that holds nothing yet unless it is named again."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")

    def run_suite(*options: str, store: str) -> pytest.RunResult:
        monkeypatch.setenv("PYTEST_SANDBOX_HOME", str(tmp_path / store))
        return pytester.runpytest_subprocess("-s", *options)

    return run_suite


def lock_of(pytester: pytest.Pytester) -> str:
    return (pytester.path / "sandbox.lock").read_text()


def locked(**pins: str) -> str:
    lines = "".join(f'"{name}" = "{digest}"\n' for name, digest in sorted(pins.items()))
    return f"{HEAD}\n[images]\n{lines}"


def test_a_locked_tag_is_what_it_was(pytester: pytest.Pytester, run: Run, push: Push, name: str) -> None:
    pytester.makepyfile(SUITE.format(name=name, test="web"))
    old = push(name, layers=2)
    run("--sandbox-lock", store="first").stdout.fnmatch_lines(["*web has 0 1", "*1 passed*"])
    assert lock_of(pytester) == locked(**{name: old.digest})

    new = push(name, layers=3)
    for store in ("first", "second"):
        plain = run(store=store)
        plain.stdout.fnmatch_lines(["*web has 0 1", "*1 passed*"])
        plain.stdout.no_fnmatch_line("*sandbox.lock*")

    told = run("--sandbox-lock", store="second")
    told.stdout.fnmatch_lines(
        [
            "*web has 0 1",
            "*= sandbox.lock =*",
            f"{name} was {old.digest}, and is {new.digest} now",
            "what was locked is what was used; pytest --sandbox-lock=update takes what is now",
        ]
    )
    assert lock_of(pytester) == locked(**{name: old.digest})

    run("--sandbox-lock=update", store="second").stdout.fnmatch_lines(["*web has 0 1 2", "*1 passed*"])
    assert lock_of(pytester) == locked(**{name: new.digest})


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_part_of_the_suite_adds_and_an_update_drops(
    pytester: pytest.Pytester, run: Run, push: Push, name: str, options: tuple[str, ...]
) -> None:
    names = {f"{name}-{test}": push(f"{name}-{test}", layers=1).digest for test in ("one", "two", "three")}
    pytester.makepyfile("".join(SUITE.format(name=f"{name}-{test}", test=test) for test in ("one", "two", "three")))
    one, two, three = names
    run("--sandbox-lock", "-k", "one or two", *options, store="store").assert_outcomes(passed=2)
    assert lock_of(pytester) == locked(**{one: names[one], two: names[two]})
    plain = run(*options, store="store")
    plain.assert_outcomes(passed=3)
    plain.stdout.fnmatch_lines([f"not locked: {three}; pytest --sandbox-lock adds what is missing"])
    run("--sandbox-lock", "-k", "three", *options, store="store").assert_outcomes(passed=1)
    assert lock_of(pytester) == locked(**names)
    run("--sandbox-lock=update", "-k", "two", *options, store="store").assert_outcomes(passed=1)
    assert lock_of(pytester) == locked(**{two: names[two]})


def test_what_the_registry_no_longer_has_says_what_to_do(
    pytester: pytest.Pytester, run: Run, push: Push, name: str
) -> None:
    push(name)
    pytester.makepyfile(SUITE.format(name=name, test="web"))
    (pytester.path / "sandbox.lock").write_text(locked(**{name: f"sha256:{'0' * 64}"}))
    result = run(store="store")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*hint: {name} is locked to this; pytest --sandbox-lock=update takes what it is now"])


def test_a_name_that_only_this_machine_has_is_locked_to_what_it_is_here(
    pytester: pytest.Pytester, run: Run, put_image: PutImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "localhost:9/web:1"
    with Store(str(tmp_path / "store")) as store:
        here = put_image(store, name, layers=1)
    pytester.makepyfile(SUITE.format(name=name, test="web"))
    monkeypatch.setenv("PYTEST_SANDBOX_OFFLINE", "1")
    for options in (["--sandbox-lock"], []):
        run(*options, store="store").assert_outcomes(passed=1)
        assert lock_of(pytester) == locked(**{name: here.digest})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[images]\n"a:1" = "sha256:12"\n', 'sandbox.lock:2: \'"a:1" = "sha256:12"\' cannot be read'),
        ("<<<<<<< HEAD\n", "sandbox.lock:1: '<<<<<<< HEAD' cannot be read"),
        ('"a:1" = "20260101T000000Z"\n', 'sandbox.lock:1: \'"a:1" = '),
    ],
)
def test_a_damaged_lock_is_told_before_anything_runs(pytester: pytest.Pytester, run: Run, text: str, said: str) -> None:
    pytester.makepyfile("def test_plain():\n    pass\n")
    (pytester.path / "sandbox.lock").write_text(text)
    result = run(store="store")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if said in line]
    assert line.endswith("; mend it, or remove the file and run pytest --sandbox-lock")
