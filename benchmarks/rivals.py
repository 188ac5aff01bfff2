"""bwrap, runc and Docker on the same base, as far as they are installed and work here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.clock import check

if TYPE_CHECKING:
    from pathlib import Path

_PATH = ("/usr/sbin", "/sbin")


class Absent(Exception):  # noqa: N818  not an error: the table says so and goes on
    """A runtime that cannot be measured here, with the reason."""


class Bwrap:
    """bubblewrap: one command in fresh namespaces."""

    name = "bwrap"

    def __init__(self, root: Path, tar: Path, where: Path, undo: ExitStack) -> None:  # noqa: ARG002
        self.once = (_find("bwrap"), "--unshare-all", "--ro-bind", str(root), "/", "true")
        self.again: tuple[str, ...] = ()
        _try(self.once)


class Runc:
    """runc: a bundle made of the defaults of ``runc spec``."""

    name = "runc"

    def __init__(self, root: Path, tar: Path, where: Path, undo: ExitStack) -> None:  # noqa: ARG002
        runc = _find("runc")
        bundle = where / "bundle"
        bundle.mkdir()
        _try((runc, "spec", "--bundle", str(bundle), *(() if os.geteuid() == 0 else ("--rootless",))))
        state = ("--root", str(where / "runc"))
        live = f"bench-{uuid.uuid4().hex[:8]}"
        self._write(bundle, root, ["sleep", "1000000"])
        _try_quietly((runc, *state, "run", "--detach", "--bundle", str(bundle), live))
        undo.callback(subprocess.run, (runc, *state, "delete", "--force", live), check=False, capture_output=True)
        self._write(bundle, root, ["true"])
        self.once = (runc, *state, "run", "--bundle", str(bundle), f"{live}-once")
        self.again = (runc, *state, "exec", live, "true")
        _try(self.once)

    @staticmethod
    def _write(bundle: Path, root: Path, argv: list[str]) -> None:
        file = bundle / "config.json"
        config = json.loads(file.read_text())
        config["root"] = {"path": str(root), "readonly": True}
        config["process"].update(terminal=False, args=argv)
        file.write_text(json.dumps(config))


class Docker:
    """Docker: a daemon of our own, on a socket and a data root that nobody else uses."""

    name = "docker"

    def __init__(self, root: Path, tar: Path, where: Path, undo: ExitStack) -> None:  # noqa: ARG002
        dockerd, docker = _find("dockerd"), _find("docker")
        if os.geteuid():
            raise Absent("dockerd needs root")
        address = where / "docker.sock"
        client = self.client = (docker, "--host", f"unix://{address}")
        undo.enter_context(_daemon(dockerd, client, where, address))
        _try((*client, "import", str(tar), "bench"))
        run = (*client, "run", "--network=none")
        live = _try((*run, "--detach", "bench", "sleep", "1000000")).strip()
        undo.callback(subprocess.run, (*client, "rm", "--force", live), check=False, capture_output=True)
        self.once = (*run, "--rm", "bench", "true")
        self.again = (*client, "exec", live, "true")
        _try(self.once)


class _daemon:  # noqa: N801  used as a function
    """A dockerd that lives as long as the context."""

    def __init__(self, dockerd: str, client: tuple[str, ...], where: Path, address: Path) -> None:
        self._argv = (
            dockerd,
            *("--host", f"unix://{address}"),
            *("--data-root", str(where / "docker"), "--exec-root", str(where / "docker-run")),
            *("--pidfile", str(where / "docker.pid"), "--bridge=none", "--iptables=false", "--ip6tables=false"),
        )
        self._client = client
        self._where = where
        # dockerd says over this socket, sd_notify(3), that it is ready: nothing is polled.
        self._notice = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> None:
        self._notice.bind(str(self._where / "notice"))
        self._notice.settimeout(30)
        environment = {**os.environ, "NOTIFY_SOCKET": str(self._where / "notice")}
        environment["PATH"] = os.pathsep.join((environment.get("PATH", ""), *_PATH))
        with (self._where / "dockerd.log").open("wb") as log:
            self._daemon = subprocess.Popen(self._argv, env=environment, stdout=log, stderr=log)
        try:
            while b"READY=1" not in self._notice.recv(4096):
                pass
        except OSError as error:
            self.__exit__()
            last = (self._where / "dockerd.log").read_text().strip().splitlines()[-1:]
            raise Absent(f"dockerd did not start: {' '.join(last)}") from error

    def __exit__(self, *exc_info: object) -> None:
        self._notice.close()
        self._daemon.send_signal(signal.SIGTERM)
        try:
            self._daemon.wait(30)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()


def rivals(
    root: Path, tar: Path, where: Path, undo: ExitStack, *, docker: bool
) -> tuple[list[Bwrap | Runc | Docker], list[str]]:
    """Return the runtimes that work here, and for each other one a line that says why not."""
    found: list[Bwrap | Runc | Docker] = []
    absent = [] if docker else ["docker: left out with --no-docker"]
    for kind in (Bwrap, Runc, Docker) if docker else (Bwrap, Runc):
        try:
            with ExitStack() as own:
                found.append(kind(root, tar, where, own))
                undo.push(own.pop_all())
        except Absent as error:
            absent.append(f"{kind.name}: {error}")
    return found, absent


def _find(program: str) -> str:
    found = shutil.which(program) or shutil.which(program, path=os.pathsep.join(_PATH))
    if found is None:
        raise Absent("not installed")
    return found


def _try(argv: tuple[str, ...]) -> str:
    try:
        return check(argv)
    except subprocess.CalledProcessError as error:
        raise Absent(f"does not work here: {(error.stderr or error.stdout).strip().splitlines()[-1:]}") from error


def _try_quietly(argv: tuple[str, ...]) -> None:
    """Try what leaves a process behind that keeps its output open: a pipe would never end."""
    done = subprocess.run(
        argv, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    if done.returncode:
        raise Absent(f"does not work here: {argv[0]} ended with {done.returncode}")
