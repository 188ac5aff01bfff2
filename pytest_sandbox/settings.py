"""Options, ini keys and variables: what the user has said, in one value. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pytest_sandbox.image_words import WORDS, cache_from, cache_to, path_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

UNITS = ("test", "module", "session")
NETWORKS = ("none", "host")
KEEP = ("none", "failed", "all")
MISSING = ("fail", "skip")
LOCK_NAME = "sandbox.lock"
LIMITS = ("enforce", "best-effort")
SWITCH = ("false", "true")
VIOLATIONS = ("ignore", "warn", "error")


class Settings(NamedTuple):
    """What the user has said of this run."""

    unit: str
    leaks: str
    network: str
    persist: tuple[str, ...]
    image: str
    python: str
    keep: str
    capture: str
    shell: bool
    missing: str
    store: str | None
    show: tuple[str, ...]
    best_effort_limits: bool
    nesting: bool
    violations: str
    durations: int | None
    rebuild: bool
    explain: bool
    offline: bool
    lock: str
    cache_from: tuple[str, ...]
    cache_to: str | None


SETTINGS = pytest.StashKey[Settings]()


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and ini key."""
    group = parser.getgroup("sandbox", "disposable machines for tests")
    # One for each word, as argparse would take a path behind --sandbox for one.
    group.addoption(
        "--sandbox",
        "--sandbox=test",
        action="store_const",
        const="test",
        default="",
        dest="sandbox_unit",
        help="run every test inside a disposable copy of this machine",
    )
    for unit in UNITS[1:]:
        group.addoption(
            f"--sandbox={unit}",
            action="store_const",
            const=unit,
            default="",
            dest="sandbox_unit",
            help=f"run every test inside, with one copy of this machine for each {unit}",
        )
    for option, wanted in (("--sandbox-report-leaks", "tell"), ("--sandbox-report-leaks=error", "error")):
        group.addoption(
            option,
            action="store_const",
            const=wanted,
            default="",
            dest="sandbox_leaks",
            help="tell what each test inside leaves: files outside of its tmp_path, processes, listening ports"
            if wanted == "tell"
            else "the same, and it is an error",
        )
    group.addoption(
        "--sandbox-image",
        metavar="IMAGE",
        dest="sandbox_image",
        help=f"what sandboxes start as where a test does not say: {WORDS}",
    )
    _add_build_options(group)
    group.addoption(
        "--sandbox-keep",
        choices=KEEP,
        dest="sandbox_keep",
        help="whose sandboxes' changed files to keep on disk (default: none)",
    )
    group.addoption(
        "--sandbox-capture",
        choices=KEEP,
        dest="sandbox_capture",
        help="whose sandboxes' packets to keep in pcap files (default: none)",
    )
    group.addoption(
        "--sandbox-shell",
        action="store_true",
        dest="sandbox_shell",
        help="open a shell in the sandbox of a test that fails, before it is gone",
    )
    group.addoption(
        "--sandbox-doctor",
        action="store_true",
        dest="sandbox_doctor",
        help="say what this host can do and what is missing, and exit",
    )
    group.addoption(
        "--sandbox-durations",
        type=int,
        metavar="N",
        dest="sandbox_durations",
        help="show the N slowest sandboxes to start (0: all)",
    )
    parser.addini("sandbox_image", f"what sandboxes start as: {WORDS}", default="host")
    parser.addini(
        "sandbox_python",
        "the Python, a path or a name, in which tests inside another image run (default: python3, else python)",
        default="",
    )
    parser.addini(
        "sandbox_retention_policy", "whose sandboxes' changed files to keep: none, failed or all", default="none"
    )
    parser.addini("sandbox_capture", "whose sandboxes' packets to keep: none, failed or all", default="none")
    parser.addini(
        "sandbox_missing", "what becomes of a test whose sandbox this host cannot make: fail or skip", default="fail"
    )
    parser.addini("sandbox_store", "the directory for images and runs", default="")
    parser.addini(
        "sandbox_persist",
        "files and directories of the project that tests inside write through, as reports/",
        type="args",
        default=[],
    )
    parser.addini("sandbox_network", "the network of a sandbox whose marker says none: none or host", default="none")
    parser.addini("sandbox_show", "paths of the host, otherwise hidden, that its copies show", type="args", default=[])
    parser.addini(
        "sandbox_limits",
        "enforce, or best-effort: start without the limits that this host cannot enforce",
        default="enforce",
    )
    parser.addini(
        "sandbox_nesting", "whether tests can make sandboxes in their sandbox: true or false", default="false"
    )
    parser.addini(
        "sandbox_network_violations",
        "what becomes of a test whose sandbox was refused a connection or a look-up: ignore, warn or error",
        default="warn",
    )


def _add_build_options(group: pytest.OptionGroup) -> None:
    group.addoption(
        "--sandbox-rebuild",
        action="store_true",
        dest="sandbox_rebuild",
        help="make every layer of an image anew, once in this run",
    )
    group.addoption(
        "--sandbox-offline",
        action="store_true",
        dest="sandbox_offline",
        help="fetch nothing: what an image needs and the store lacks is an error",
    )
    group.addoption(
        "--sandbox-lock",
        nargs="?",
        choices=("add", "update"),
        const="add",
        default="",
        dest="sandbox_lock",
        help="write what names of images mean to sandbox.lock, where they are not in it yet; update: all of them anew",
    )
    group.addoption(
        "--sandbox-cache-from",
        action="append",
        default=[],
        metavar="REPOSITORY",
        dest="sandbox_cache_from",
        help="look for layers in this repository of a registry before they are made",
    )
    group.addoption(
        "--sandbox-cache-to",
        metavar="REPOSITORY",
        dest="sandbox_cache_to",
        help="send the layers that images have to this repository of a registry, for other machines",
    )
    group.addoption(
        "--sandbox-explain",
        action="store_true",
        dest="sandbox_explain",
        help="say why a layer is not taken from the cache",
    )


def read_settings(config: pytest.Config) -> Settings:
    """Return what options, variables and ini keys say, in that order; raises UsageError."""
    keep = config.getoption("sandbox_keep") or _ini(config, "sandbox_retention_policy", KEEP)
    return Settings(
        unit=config.getoption("sandbox_unit"),
        leaks=config.getoption("sandbox_leaks"),
        network=_ini(config, "sandbox_network", NETWORKS),
        persist=tuple(_persisted(config)),
        image=_image(config),
        python=_said(config, "sandbox_python"),
        keep=str(keep),
        capture=str(config.getoption("sandbox_capture") or _ini(config, "sandbox_capture", KEEP)),
        shell=config.getoption("sandbox_shell"),
        missing=_ini(config, "sandbox_missing", MISSING),
        store=_store(config),
        show=tuple(os.path.expanduser(path) for path in config.getini("sandbox_show")),
        best_effort_limits=_ini(config, "sandbox_limits", LIMITS) == "best-effort",
        nesting=_ini(config, "sandbox_nesting", SWITCH) == "true",
        violations=_ini(config, "sandbox_network_violations", VIOLATIONS),
        durations=config.getoption("sandbox_durations"),
        rebuild=config.getoption("sandbox_rebuild") or bool(os.environ.get("PYTEST_SANDBOX_NO_CACHE")),
        explain=config.getoption("sandbox_explain"),
        lock=config.getoption("sandbox_lock"),
        cache_from=(*config.getoption("sandbox_cache_from"), *cache_from(os.environ)),
        cache_to=config.getoption("sandbox_cache_to") or cache_to(os.environ),
        offline=config.getoption("sandbox_offline") or bool(os.environ.get("PYTEST_SANDBOX_OFFLINE")),
    )


def _persisted(config: pytest.Config) -> Iterator[str]:
    root = os.path.realpath(config.rootpath)
    for path in config.getini("sandbox_persist"):
        real = os.path.realpath(os.path.join(root, path))
        if not real.startswith(f"{root}{os.sep}"):
            raise pytest.UsageError(f"sandbox_persist has {path!r}, which is not below the project's directory, {root}")
        yield real


def _image(config: pytest.Config) -> str:
    image = str(config.getoption("sandbox_image") or _said(config, "sandbox_image"))
    return image if image == "host" else path_of(image, str(config.rootpath)) or image


def _store(config: pytest.Config) -> str | None:
    store = _said(config, "sandbox_store")
    return str(config.rootpath / os.path.expanduser(store)) if store else None


def _said(config: pytest.Config, name: str) -> str:
    return os.environ.get(f"PYTEST_{name.upper()}") or str(config.getini(name))


def _ini(config: pytest.Config, name: str, choices: Iterable[str]) -> str:
    value = _said(config, name)
    if value not in choices:
        raise pytest.UsageError(f"{name} = {value!r} is none of {', '.join(choices)}")
    return value


def needed_paths(config: pytest.Config) -> tuple[str, ...]:
    """Return what a test's body reads of the host: its project, its interpreter and its libraries."""
    paths = [str(config.rootpath), str(config.invocation_params.dir), sys.prefix, sys.base_prefix, *sys.path]
    return tuple(dict.fromkeys(os.path.realpath(path) for path in paths if path and os.path.isdir(path)))
