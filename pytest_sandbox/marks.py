"""The marker ``sandbox``: from its words to a spec. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox.image_words import image_named
from pytest_sandbox.settings import SETTINGS

if TYPE_CHECKING:
    from pytest_sandbox_runtime.specs import SandboxSpec

MARKER = (
    "sandbox(image=None, *, inside=None, python=None, network='none', env=None, mounts=(), memory=None, cpus=None, "
    "pids=None, user=None, workdir=None, hostname='sandbox', read_only=False, timeout=None, time_namespace=False, "
    "ports=(), extra_hosts=(), ulimits=(), cap_add=(), cap_drop=(), shm_size=None, nesting=False): give this test "
    "a disposable machine; without the sandbox fixture its body runs inside it"
)
NO_MARKER = "no_sandbox: run this test as it is, also with --sandbox"
# Whoever asks for one of these drives sandboxes from outside.
_DRIVING = {
    "sandbox",
    "sandbox_factory",
    "sandbox_engine",
    "sandbox_network",
    "sandbox_shared_network",
    "sandbox_run_network",
}


def is_marked(item: pytest.Item) -> bool:
    """Whether ``item`` is to have a sandbox, by its marker or by --sandbox."""
    if item.get_closest_marker("no_sandbox") is not None:
        return False
    return item.get_closest_marker("sandbox") is not None or bool(item.config.stash[SETTINGS].unit)


def runs_inside(item: pytest.Item) -> bool:
    """Whether the test's body is to run in its sandbox: unless it says otherwise, where it drives none itself."""
    if not is_marked(item):
        return False
    inside = next((mark.kwargs["inside"] for mark in item.iter_markers("sandbox") if "inside" in mark.kwargs), None)
    return bool(inside) if inside is not None else not _DRIVING & set(getattr(item, "fixturenames", ()))


def unit_of(item: pytest.Item) -> pytest.Item | pytest.Collector:
    """Return what has one machine for all its tests that run inside: the test, its file, or the session."""
    unit = item.config.stash[SETTINGS].unit
    if unit == "session":
        return item.session
    # Not only of Python: a doctest's text file is one, too.
    return next(node for node in item.listchain() if isinstance(node, pytest.File)) if unit == "module" else item


def spec_of(item: pytest.Item) -> SandboxSpec:
    """Return the spec that the item's markers, the nearest first, and the settings make; raises SpecError."""
    words = _words(item)
    for own in ("inside", "python"):
        words.pop(own, None)
    spec = make_spec(item.config, **words)
    if runs_inside(item):
        spec = _persisting(spec, (*item.config.stash[SETTINGS].persist, *_databases(item.config)))
    changed = item.ihook.pytest_sandbox_spec(item=item, spec=spec)
    spec = spec if changed is None else changed
    if not spec.image.is_host and runs_inside(item):
        from pytest_sandbox.foreign import carrying

        return carrying(item.config, spec)
    return spec


def python_of(item: pytest.Item) -> str:
    """Return the Python, a path or a name, that a test inside another image is to run in; empty for any."""
    return str(_words(item).get("python") or item.config.stash[SETTINGS].python)


def make_spec(config: pytest.Config, **words: Any) -> SandboxSpec:
    """Return a spec of ``words``, with the settings' image where they name none; raises SpecError."""
    from pytest_sandbox_runtime.errors import SpecError
    from pytest_sandbox_runtime.specs import SPEC_FIELDS, SandboxSpec

    for name in words:
        if name not in SPEC_FIELDS:
            from pytest_sandbox_runtime.suggestions import did_you_mean

            hint = did_you_mean(name, SPEC_FIELDS, f"there are {', '.join(SPEC_FIELDS)}")
            raise SpecError(f"a sandbox takes no argument {name!r}", hint=hint)
    if words.get("image") is None:
        words["image"] = image_named(config.stash[SETTINGS].image)
    words.setdefault("network", config.stash[SETTINGS].network)
    words.setdefault("nesting", config.stash[SETTINGS].nesting)
    return SandboxSpec(**words)


def _persisting(spec: SandboxSpec, paths: tuple[str, ...]) -> SandboxSpec:
    """Return ``spec`` with what tests inside write through."""
    if not paths:
        return spec
    from dataclasses import replace

    from pytest_sandbox_runtime.errors import SpecError
    from pytest_sandbox_runtime.specs import Mount

    for path in paths:
        try:
            if not os.path.exists(path):
                os.makedirs(path)
        except OSError as error:
            raise SpecError(f"{path} is to be written through, and cannot be made: {error.strerror}") from None
    return replace(spec, mounts=(*spec.mounts, *(Mount(source=path, target=path, read_only=False) for path in paths)))


def _databases(config: pytest.Config) -> list[str]:
    """Return where hypothesis, if tests have imported it, keeps the examples that have failed."""
    if "hypothesis" not in sys.modules:
        return []
    directory = os.path.realpath(os.environ.get("HYPOTHESIS_STORAGE_DIRECTORY", ".hypothesis"))
    is_writable = os.access(directory if os.path.exists(directory) else os.path.dirname(directory), os.W_OK)
    return [directory] if is_writable and directory.startswith(f"{os.path.realpath(config.rootpath)}{os.sep}") else []


def _words(item: pytest.Item) -> dict[str, Any]:
    from pytest_sandbox_runtime.errors import SpecError

    words: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers("sandbox"))):
        if len(mark.args) > 1:
            raise SpecError(f"the sandbox marker takes one argument without a name, image, and was given {mark.args!r}")
        words.update({"image": mark.args[0]} if mark.args else {})
        words.update(mark.kwargs)
    return words


def check(items: list[pytest.Item]) -> list[str]:
    """Return what is wrong with the markers of ``items``, a line each."""
    return [f"{item.nodeid}: {error}" for item in items if is_marked(item) and (error := error_of(item))]


def error_of(item: pytest.Item) -> str:
    """Return what is wrong with the item's marker, or nothing."""
    from pytest_sandbox_runtime.errors import SpecError

    try:
        spec = spec_of(item)
        if runs_inside(item):
            _check_inside(item, spec)
    except SpecError as error:
        return str(error)
    return ""


def _check_inside(item: pytest.Item, spec: SandboxSpec) -> None:
    from pytest_sandbox_runtime.errors import SpecError

    driving = sorted(_DRIVING & set(getattr(item, "fixturenames", ())))
    if spec.image.is_host and (python := _words(item).get("python")):
        msg = f"python={python!r} is for another image: inside a copy of this machine it is the Python that runs pytest"
        raise SpecError(msg, hint="leave it out, or say which image=")
    if driving:
        msg = f"a test that runs inside, as its fixtures do, cannot drive sandboxes with {', '.join(driving)}"
        raise SpecError(msg, hint="leave out inside=True: the test then drives them from outside")
