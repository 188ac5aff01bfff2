"""``pytest-sandbox compose``: projects of compose files, up beside the tests. PYTEST_DONT_REWRITE.

One process holds a project that is up, and with it everything that runs; what others ask is in a file of the store.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Any

from pytest_sandbox.cli.watching import watched
from pytest_sandbox.image_words import WORDS, image_named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from pytest_sandbox_runtime.compose import Project
    from pytest_sandbox_runtime.compose.running import LiveProject
    from pytest_sandbox_runtime.services.live_service import LiveService

_PATIENCE = 30.0
# Not what a build would say.
_UP = b"\x04 up\n"


def add_compose(commands: Any) -> None:
    """Declare the command and its own."""
    compose = commands.add_parser("compose", help="start, list and end the services of a compose file")
    compose.add_argument("-f", "--file", action="append", default=[], help="the compose file (default: of this folder)")
    compose.add_argument("-p", "--project-name", metavar="NAME")
    compose.add_argument("--profile", action="append", default=[])
    compose.add_argument("--env-file", metavar="FILE")
    compose.add_argument(
        "--image", action="append", default=[], metavar="NAME=IMAGE", help=f"what NAME in the file stands for: {WORDS}"
    )
    verbs = compose.add_subparsers(required=True, metavar="VERB")
    up = verbs.add_parser("up", help="start the services, and show what they print until Ctrl-C")
    up.add_argument("-d", "--detach", action="store_true", help="leave them running, until down")
    up.add_argument(
        "--expose", action="append", type=int, default=[], metavar="PORT", help="a port of this machine at host-gateway"
    )
    up.add_argument("services", nargs="*", metavar="SERVICE")
    up.set_defaults(run=_up)
    down = verbs.add_parser("down", help="end them")
    down.set_defaults(run=_down)
    ps = verbs.add_parser("ps", help="list them, and where their ports are")
    ps.set_defaults(run=_ps)
    logs = verbs.add_parser("logs", help="show what they have printed")
    logs.add_argument("-f", "--follow", action="store_true", help="and what they print from now on")
    logs.add_argument("services", nargs="*", metavar="SERVICE")
    logs.set_defaults(run=_logs)


def _project(options: argparse.Namespace) -> Project:
    from pytest_sandbox_runtime.compose import load

    return load(
        options.file or os.getcwd(),
        profiles=options.profile,
        env_file=options.env_file,
        project_name=options.project_name,
        services=getattr(options, "services", ()),
    )


def _up(options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime.errors import SpecError

    project = _project(options)
    if _holder(project.name) is not None:
        raise SpecError(f"{project.name} is up", hint="end it first: pytest-sandbox compose down")
    if options.detach:
        return _detach(options, project)
    with _Held(options, project) as held:
        _follow(held.logs())
    return 0


def _detach(options: argparse.Namespace, project: Project) -> int:
    """Have a process of its own hold the project; what that says until it is up is said here."""
    told, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        _speak_into(tell)
        status = 1
        try:
            with _Held(options, project) as held:
                os.write(1, _UP)
                _speak_into(os.open(os.devnull, os.O_RDWR))
                held.wait()
            status = 0
        except BaseException as error:
            print(f"pytest-sandbox: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    os.close(tell)
    with open(told, "rb") as stream:
        for line in stream:
            if line == _UP:
                return 0
            sys.stdout.write(line.decode(errors="replace"))
    return 1


def _speak_into(descriptor: int) -> None:
    for number in (1, 2):
        os.dup2(descriptor, number)


class _Held:
    """A project that this process holds up, and the file that says so."""

    def __init__(self, options: argparse.Namespace, project: Project) -> None:
        from pytest_sandbox_runtime import Engine

        self._path = _path_of(project.name)
        self._undo = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            engine = undo.enter_context(Engine.open(watched()))
            images = {name: image_named(image) for name, _, image in (one.partition("=") for one in options.image)}
            self._live: LiveProject = undo.enter_context(engine.compose(project, images, options.expose))
            undo.callback(_unlink, self._path)
            self._record()
            self._undo = undo.pop_all()
        print("\n".join(_rows(_read(self._path))), flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._undo.close()

    def _services(self) -> list[LiveService]:
        return [one for some in self._live.services.values() for one in some]

    def logs(self) -> list[tuple[str, str]]:
        """Return the names and the logs of the services."""
        return [(one.service.name, one.parts.log) for one in self._services()]

    def _record(self) -> None:
        services = [
            {
                "name": one.service.name,
                "state": _state(one),
                "log": one.parts.log,
                "ports": {str(port): _address(one, port) for port in one.service.ports},
            }
            for one in self._services()
        ]
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        with open(f"{self._path}.part", "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "services": services}, file)
        os.rename(f"{self._path}.part", self._path)

    def wait(self) -> None:
        """Wait until somebody ends this process, and write down which services end meanwhile."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        from pytest_sandbox_runtime.kernel.processes import signalfd

        asked = signalfd((signal.SIGTERM,))
        running = {one.process.fileno(): one for one in self._services() if one.process.poll() is None}
        poll = select.poll()
        for fd in (asked, *running):
            poll.register(fd, select.POLLIN)
        while asked not in (ready := [fd for fd, _ in poll.poll()]):
            for fd in ready:
                if running[fd].process.poll() is not None:
                    poll.unregister(fd)
                self._record()


def _state(service: LiveService) -> str:
    from pytest_sandbox_runtime.services.readiness import state_of

    return state_of(service.process).partition(",")[0]


def _address(service: LiveService, port: int) -> str:
    with contextlib.suppress(OSError):
        return "{}:{}".format(*service.address(port, timeout=0))
    return ""


def _path_of(name: str) -> str:
    from pytest_sandbox_runtime.images.home import default_store

    return os.path.join(default_store(os.environ), "projects", f"{name}.json")


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _read(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        read: dict[str, Any] = json.load(file)
    return read


def _holder(name: str) -> dict[str, Any] | None:
    """Return what is known of the project ``name`` where a process holds it; a dead one's file is removed."""
    path = _path_of(name)
    try:
        known = _read(path)
        with open(f"/proc/{known['pid']}/cmdline", "rb") as file:
            if b"compose" in file.read():
                return known
    except (FileNotFoundError, ProcessLookupError):
        pass
    _unlink(path)
    return None


def _held(options: argparse.Namespace) -> dict[str, Any]:
    from pytest_sandbox_runtime.errors import SpecError

    name = _project(argparse.Namespace(**{**vars(options), "services": ()})).name
    known = _holder(name)
    if known is None:
        raise SpecError(f"{name} is not up", hint="start it: pytest-sandbox compose up --detach")
    return known


def _down(options: argparse.Namespace) -> int:
    known = _held(options)
    pidfd = os.pidfd_open(known["pid"])
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    if not select.select([pidfd], [], [], _PATIENCE)[0]:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [])
    os.close(pidfd)
    return 0


def _ps(options: argparse.Namespace) -> int:
    print("\n".join(_rows(_held(options))))
    return 0


def _rows(known: dict[str, Any]) -> Iterable[str]:
    yield f"{'SERVICE':<20} {'PROCESS':<28} PORTS"
    for one in known["services"]:
        ports = ", ".join(f"{port} at {where}" if where else port for port, where in one["ports"].items())
        yield f"{one['name']:<20} {one['state']:<28} {ports}".rstrip()


def _logs(options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime.errors import SpecError

    services = _held(options)["services"]
    names = [one["name"] for one in services]
    for name in options.services:
        if name not in names:
            raise SpecError(f"there is no service {name!r}: there are {', '.join(names)}")
    logs = [(one["name"], one["log"]) for one in services if one["name"] in (options.services or names)]
    _follow(logs, for_ever=options.follow)
    return 0


def _follow(logs: list[tuple[str, str]], *, for_ever: bool = True) -> None:
    """Print what is in each of ``logs``, a line behind the service's name, and what comes."""
    from pytest_sandbox_runtime.kernel.inotify import MODIFY, inotify_add_watch, inotify_init

    width = max((len(name) for name, _ in logs), default=0)
    changes = inotify_init()
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, changes)
        files = [(name, undo.enter_context(open(log, "rb"))) for name, log in logs]
        for _, log in logs:
            inotify_add_watch(changes, log, MODIFY)
        while True:
            for name, file in files:
                for line in file:
                    print(f"{name:<{width}} | {line.decode(errors='replace').rstrip()}", flush=True)
            if not for_ever:
                return
            select.select([changes], [], [])
            os.read(changes, 65536)
