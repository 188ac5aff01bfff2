"""Tests inside an image that is another system than this one: pytest runs there, in the image's own Python.

What that Python runs is guest.py. It is believed nothing: it answers in JSON, of which reports are made here.
PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import builtins
import json
import os
import socket
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

import pytest

from pytest_sandbox import marks
from pytest_sandbox.told import Caught, Told
from pytest_sandbox.unit import GRACE, LENGTH, PROCESS, Unit
from pytest_sandbox_runtime.errors import CommandNotFoundError, CommandTimeoutError, ImageError, SpecError
from pytest_sandbox_runtime.specs import Mount, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_sandbox_runtime.process import Process
    from pytest_sandbox_runtime.sandbox import Sandbox
    from pytest_sandbox_runtime.specs import SandboxSpec

# Where our two packages are in the image: what a test module imports of them is there, too.
_PLACE = "/run/pytest-sandbox"
_PYTHONS = ("python3", "python")
_OLDEST_PYTHON, _OLDEST_PYTEST = (3, 9), 7
# Told before anything that an old Python does not understand, or that may be missing.
_BOOT = f"""
import json, os, struct, sys
sys.path[:] = ["{_PLACE}"] + [path for path in sys.path if path]
versions = {{"executable": sys.executable, "python": "%d.%d.%d" % sys.version_info[:3], "pytest": "", "error": ""}}
try:
    import pytest
    versions["pytest"] = pytest.__version__
except ImportError as error:
    versions["error"] = str(error)
told = json.dumps(versions).encode()
os.write(0, struct.pack("!Q", len(told)) + told)
from pytest_sandbox import guest
guest.serve("{_PLACE}")
"""
# Options that are of this process only: what it reads early, and is told in words; what chooses and distributes tests,
# or orders them by those of the last run; and what writes reports of the run.
_OUTER = {
    "file_or_dir", "plugins", "inifilename", "rootdir", "confcutdir", "noconftest", "override_ini", "capture",
    "importmode", "assertmode", "pythonwarnings", "strict_config", "collectonly", "lf", "failedfirst", "newfirst",
    "stepwise", "stepwise_skip", "stepwise_reset", "cacheclear", "basetemp", "pastebin", "debug",
    "numprocesses", "maxprocesses", "dist", "distload", "tx", "px", "looponfail", "loadgroup", "version", "help",
}  # fmt: skip
# Plugins that no process but this one is to load: they would distribute tests, or start sandboxes in the sandbox.
_OUTER_PLUGINS = ("xdist", "pytest_sandbox")


def carrying(config: pytest.Config, spec: SandboxSpec) -> SandboxSpec:
    """Return ``spec`` with what a test inside needs of this machine: the project, copied on write, and our packages."""
    import pytest_sandbox
    import pytest_sandbox_runtime

    project = [Mount(source=path, target=path, copy=True) for path in _directories(config)]
    own = [
        Mount(source=package.__path__[0], target=f"{_PLACE}/{package.__name__}")
        for package in (pytest_sandbox, pytest_sandbox_runtime)
    ]
    return replace(spec, mounts=(*project, *own, *spec.mounts))


def _directories(config: pytest.Config) -> list[str]:
    """Return the project's directory, and that which pytest was started in, where it is elsewhere.

    Not where that would hide the image behind this machine.
    """
    root, started = str(config.rootpath), str(config.invocation_params.dir)
    if root == os.sep:
        raise SpecError(
            "the project's directory is /, which would hide the image", hint="say which it is, with --rootdir"
        )
    is_apart = not _is_within(started, root) and not _is_within(root, started) and os.path.dirname(started) != os.sep
    return [root, started] if is_apart else [root]


def _is_within(path: str, directory: str) -> bool:
    return os.path.commonpath([path, directory]) == directory


def start(item: pytest.Item, sandbox: Sandbox, tests: Sequence[pytest.Item]) -> Guest:
    """Have pytest in ``sandbox`` get ready for ``tests``, of which ``item`` is the first; raises SandboxError."""
    config = item.config
    with ExitStack() as undo:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        undo.callback(ours.close)
        outputs = tuple(undo.enter_context(tempfile.TemporaryFile()) for _ in ("stdout", "stderr"))
        with theirs, tempfile.TemporaryFile() as words, os.fdopen(_stdin(config), "rb") as stdin:
            words.write(json.dumps(_words(config, tests)).encode())
            words.seek(0)
            socket.send_fds(ours, [b"\0"], [stdin.fileno(), 1, 2, words.fileno()])
            process = _launch(marks.python_of(item), sandbox, theirs, outputs, _workdir(config))
        undo.callback(process.let_go)
        return Guest(item, sandbox, [one.nodeid for one in tests], ours, process, outputs, undo.pop_all())


def _stdin(config: pytest.Config) -> int:
    """Return a descriptor of what this process reads from, which capturing has put away: for --pdb and -s."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    capture.suspend_global_capture(in_=True)
    try:
        return os.dup(0)
    finally:
        capture.resume_global_capture()
        capture.suspend_global_capture(in_=False)


def _launch(
    python: str, sandbox: Sandbox, channel: socket.socket, outputs: tuple[IO[bytes], ...], workdir: str
) -> Process:
    for name in [python] if python else _PYTHONS:
        try:
            stdout, stderr = outputs
            argv = [name, "-c", _BOOT]
            return sandbox.popen(argv, stdin=channel.fileno(), stdout=stdout, stderr=stderr, workdir=workdir)
        except CommandNotFoundError:
            continue
    image = sandbox.spec.image
    if python:
        raise ImageError(
            f"there is no {python} in {image}, which the test is to run in", hint="see python= and sandbox_python"
        )
    raise ImageError(
        f"there is no Python in {image}, which the test is to run in",
        hint='add it with pytest, as by .apt("python3-pytest"), or name it by python= or sandbox_python',
    )


def _workdir(config: pytest.Config) -> str:
    here = os.getcwd()
    is_there = any(_is_within(here, one) or _is_within(one, here) for one in _directories(config))
    return here if is_there else str(config.rootpath)


def _words(config: pytest.Config, tests: Sequence[pytest.Item]) -> dict[str, Any]:
    """Return what guest.py is to know."""
    kept = {*vars(config.option)} - _OUTER
    return {
        "arguments": [*_arguments(config), *dict.fromkeys(str(item.path) for item in tests)],
        "options": {name: value for name in kept if _can_travel(value := getattr(config.option, name))},
        "paths": list(_paths(config)),
        "tests": [item.nodeid for item in tests],
    }


def _can_travel(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _arguments(config: pytest.Config) -> list[str]:
    """Return the options that pytest reads before it has read all."""
    option = config.option
    plugins = [name for name in option.plugins if not name.removeprefix("no:").startswith(_OUTER_PLUGINS)]
    return [
        *("-p", "no:sandbox", *(word for name in plugins for word in ("-p", name))),
        *(("-c", str(config.inipath)) if config.inipath else ()),
        f"--rootdir={config.rootpath}",
        # Those of the ini file are among the options already, and plugins that are wanted outside are not wanted there.
        *("-o", "addopts=", "-o", "required_plugins="),
        *(word for pair in option.override_ini or () for word in ("-o", pair)),
        *(word for one in option.pythonwarnings or () for word in ("-W", one)),
        *([f"--confcutdir={option.confcutdir}"] if option.confcutdir else []),
        *(["--noconftest"] if option.noconftest else []),
        *(f"--capture={option.capture}", f"--import-mode={option.importmode}", f"--assert={option.assertmode}"),
    ]


def _paths(config: pytest.Config) -> Iterator[str]:
    """Yield what modules of the project are imported from: by PYTHONPATH, or as it is installed to be edited."""
    directories = _directories(config)
    for path in map(os.path.abspath, sys.path):
        if any(_is_within(path, one) for one in directories) and not _is_within(path, sys.prefix):
            yield path


class Guest(Unit):
    """A unit that is a pytest of its own, in the Python of an image."""

    def __init__(
        self,
        first: pytest.Item,
        sandbox: Sandbox,
        tests: Sequence[str],
        channel: socket.socket,
        process: Process,
        outputs: tuple[IO[bytes], ...],
        undo: ExitStack,
    ) -> None:
        super().__init__(first, sandbox, channel)
        self._tests = tests
        self._process = process
        self._ended = process.fileno()
        self._outputs = outputs
        self._undo = undo
        # Once it has begun: of tests that are not there, what they are instead, and why.
        self._missing: dict[str, tuple[str, str]] | None = None

    def admit(self, item: pytest.Item) -> None:
        """Fail or skip where the process cannot run ``item``."""
        __tracebackhide__ = True
        if self._missing is None:
            try:
                self._missing = self._begun()
            except ImageError as error:
                # The next one of the unit is not told better.
                self._missing = dict.fromkeys(self._tests, ("failed", str(error)))
        outcome, why = self._missing.get(item.nodeid, ("", ""))
        if outcome == "skipped":
            raise pytest.skip.Exception(why, _use_item_location=True)
        if outcome:
            pytest.fail(why, pytrace=False)

    def _begun(self) -> dict[str, tuple[str, str]]:
        image = str(self.sandbox.spec.image)
        answer: dict[str, Any] = {}
        try:
            answer = self._answer()
            _check(answer, image)
            answer = self._answer()
            if "error" in answer:
                raise ImageError(f"pytest cannot start in {image}, where it says:\n{answer['error']}")
            said = f"this test is not to be found in {image}, where pytest says:\n"
            return {
                nodeid: (outcome, str(why) if outcome == "skipped" else f"{said}{why}")
                for nodeid, (outcome, why) in answer["missing"].items()
            }
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ImageError(f"what is to be Python in {image} told something else than it should") from None

    def _answer(self) -> dict[str, Any]:
        # Its timeout is for a test.
        said = self._hear(None)
        if not said:
            ended = self.outcome() or "the process has closed its connection"
            last = "\n".join(text.rstrip() for text in self.printed() if text)
            raise ImageError(f"pytest did not start in {self.sandbox.spec.image}: {ended}\n{last}".rstrip())
        answer = json.loads(said)
        if not isinstance(answer, dict):
            raise TypeError
        return answer

    def _order(self, item: pytest.Item | None, following: pytest.Item | None) -> bytes:
        order = [*(one and one.nodeid for one in (item, following)), self.first.session.testsfailed]
        said = json.dumps(order).encode()
        return LENGTH.pack(len(said)) + said

    def begin(self, item: pytest.Item, following: pytest.Item | None) -> None:
        """Let a test run; what it has set up and ``following`` needs, too, it leaves as it is."""
        self._item = item
        super().begin(item, following)

    def _decode(self, said: bytes) -> Told | str:
        try:
            told = json.loads(said)
            return str(told["error"]) if "error" in told else self._told(told)
        except Exception as error:
            # Whoever runs there can have sent it.
            return f"what the test's process told cannot be read: {type(error).__name__}: {error}"

    def _told(self, told: dict[str, Any]) -> Told:
        raised = told["raised"]
        return Told(
            reports=[_report_of(self._item, data) for data in told["reports"]],
            # What came before the tests came here, too.
            warnings=[_caught(*one) for one in told["warnings"] if one[-1] == "runtest"],
            raised=raised and (KeyboardInterrupt(*raised) if len(raised) == 1 else pytest.exit.Exception(*raised)),
            shouldstop=told["shouldstop"],
            shouldfail=told["shouldfail"],
            pid=self._process.pid,
        )

    def outcome(self) -> Outcome | None:
        """Return how the process ended; None if it has not."""
        try:
            status = self._process.wait(GRACE)
        except CommandTimeoutError:
            return None
        return Outcome(PROCESS, status, oom_killed=self._process.oom_killed)

    def printed(self) -> tuple[str, str]:
        """Return what was captured of the process, on stdout and stderr, and is in no report."""
        out, err = (os.pread(one.fileno(), os.fstat(one.fileno()).st_size, 0) for one in self._outputs)
        return out.decode(errors="replace"), err.decode(errors="replace")

    def close(self) -> None:
        """End the sandbox and all that is left in it. Again: nothing."""
        super().close()
        self._undo.close()


def _check(versions: dict[str, Any], image: str) -> None:
    """Raise ImageError where the image's Python is not enough."""
    executable, python, its_pytest, error = (
        str(versions[name]) for name in ("executable", "python", "pytest", "error")
    )
    what = f"{executable} of {image}, Python {python},"
    if tuple(map(int, python.split(".")))[:2] < _OLDEST_PYTHON:
        msg = f"{what} is too old for a test inside, which needs {'.'.join(map(str, _OLDEST_PYTHON))}"
        raise ImageError(msg, hint="name another one by python= or sandbox_python")
    if not its_pytest:
        hint = 'add it to the image, by .pip("pytest") or .apt("python3-pytest")'
        raise ImageError(f"{what} has no pytest: {error}", hint=hint)
    if int(its_pytest.split(".")[0]) < _OLDEST_PYTEST:
        msg = f"{what} has pytest {its_pytest}, and a test inside needs {_OLDEST_PYTEST} or later"
        raise ImageError(msg, hint=f'add it to the image, by .pip("pytest>={_OLDEST_PYTEST}")')


def _report_of(item: pytest.Item, data: dict[str, Any]) -> pytest.TestReport:
    if data["nodeid"] != item.nodeid:
        raise ValueError(f"no report of {item.nodeid}")
    for name in ("sections", "user_properties"):
        data[name] = [tuple(pair) for pair in data[name]]
    for name in ("location", "longrepr"):
        # JSON has no tuples; a skip's reason is one.
        data[name] = tuple(data[name]) if isinstance(data[name], list) else data[name]
    make = item.config.hook.pytest_report_from_serializable
    # Of a newer pytest there may be others than those this one knows.
    report = make(config=item.config, data=data) or make(
        config=item.config, data={**data, "$report_type": "TestReport"}
    )
    if not isinstance(report, pytest.TestReport):
        raise TypeError(f"{data.get('$report_type')} is no report of a test")
    return report


def _caught(message: str, kinds: list[list[str]], filename: str, lineno: int, nodeid: str, when: str) -> Caught:
    return Caught(message, next(filter(None, map(_category, kinds)), UserWarning), filename, lineno, nodeid, when)


def _category(kind: list[str]) -> type[Warning] | None:
    """Return the class of that module and name, if there is one here already: nothing is imported for it."""
    module, name = kind
    found = vars(sys.modules.get(module, builtins)).get(name)
    return found if isinstance(found, type) and issubclass(found, Warning) else None
