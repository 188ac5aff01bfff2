"""PYTEST_DONT_REWRITE. The client's side of a run: starts the supervisor, turns specs into sandboxes."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import warnings
import weakref
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.capabilities import explain, is_privileged, limits_not_enforced
from pytest_sandbox_runtime.errors import (
    EngineError,
    ImageError,
    SandboxClosedError,
    SandboxError,
    StartError,
    UnsupportedError,
)
from pytest_sandbox_runtime.images.store import Store, default_store
from pytest_sandbox_runtime.jobs import LIMITS, Jobs
from pytest_sandbox_runtime.sandbox import Sandbox, Started
from pytest_sandbox_runtime.specs.image import Image
from pytest_sandbox_runtime.specs.sandbox import Mount
from pytest_sandbox_runtime.state import can_be_upper, create_run, subordinate_ids
from pytest_sandbox_runtime.supervisor.messages import receive, send
from pytest_sandbox_runtime.supervisor.removal import kept_path, remove_run
from pytest_sandbox_runtime.supervisor.server import MEMORY, SOCKET_NAME, START

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from pytest_sandbox_runtime.images.building.builder import Builder
    from pytest_sandbox_runtime.images.images import Images
    from pytest_sandbox_runtime.rootfs.plan import Tree
    from pytest_sandbox_runtime.rootfs.steps import Step
    from pytest_sandbox_runtime.specs import SandboxSpec

_SUPERVISOR = os.path.join(os.path.dirname(__file__), "supervisor", "__main__.py")
_PATIENCE = 10.0
# A sandbox costs its client three descriptors, and 1,024 is what most shells allow.
_MANY = 200


def _say_nothing(*_said: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How an engine works. ``store`` is a directory, None for the default one.

    ``best_effort_limits`` lets sandboxes start without the limits that this host cannot enforce; ``show`` names what
    of the host's secrets, sockets and homes may be seen; ``needed`` what must be reachable in a copy of the host.
    What sandboxes write is held in memory (tmpfs(5), half of the machine's at most), or, with ``on_disk`` and for
    those with a memory limit, in the store, where it can be kept. With ``kept``, a path that Sandbox.keep has returned,
    each begins with what that sandbox had changed. ``rebuild`` takes no layer from earlier runs, ``explain`` has
    ``report``, which is told a line for each step of a build as it begins, told why it is not in the cache, too.
    ``done`` is told the same line when the step has ended, however it ended, and the seconds that it took. Both are
    called from several threads, as stages are built side by side.
    """

    store: str | None = None
    best_effort_limits: bool = False
    show: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    on_disk: bool = False
    kept: str | None = None
    rebuild: bool = False
    explain: bool = False
    report: Callable[[str], None] = _say_nothing
    done: Callable[[str, float], None] = _say_nothing


class Engine:
    """A run: all the sandboxes made through it end with it, however it ends. Safe to use from several threads."""

    def __init__(self, settings: EngineSettings, store: str, run: str, channel: socket.socket, undo: ExitStack) -> None:
        self.settings = settings
        self.store = Store(store)
        self._run = run
        self._channel = channel
        self._undo: ExitStack | None = undo
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._specs: dict[SandboxSpec, SandboxSpec] = {}
        self._kept: set[str] = set()
        self._jobs = Jobs(settings, self.store, self._seen)
        self._alive: weakref.WeakSet[Sandbox] = weakref.WeakSet()
        self._memory = self._greet()

    @classmethod
    def open(cls, settings: EngineSettings | None = None) -> Self:
        """Start a supervisor; raises UnsupportedError or EngineError where this host does not let it."""
        settings = settings or EngineSettings()
        store = os.path.abspath(settings.store or default_store(os.environ))
        _check_disk(settings, store)
        with ExitStack() as undo:
            run = create_run(store)
            undo.callback(os.close, run.lock)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                supervisor = _launch(run.path, theirs.fileno(), run.lock)
            undo.callback(_await_end, supervisor)
            undo.callback(ours.close)
            try:
                return cls(settings, store, run.path, ours, undo.pop_all())
            except SandboxError:
                # There is no supervisor that would do it.
                with contextlib.suppress(OSError):
                    remove_run(run.path)
                raise

    @classmethod
    def join(cls, address: str, settings: EngineSettings) -> Self:
        """Become one more client of the supervisor whose ``address`` Engine.listen has returned."""
        with ExitStack() as undo:
            channel = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            directory = os.open(address, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # By descriptor, as the path may be longer than unix(7) allows.
                channel.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
            except OSError as error:
                raise EngineError(f"the supervisor of {address} does not answer: {error.strerror}") from error
            finally:
                os.close(directory)
            return cls(settings, os.path.dirname(os.path.dirname(address)), address, channel, undo.pop_all())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Engine {self._run} {'closed' if self._undo is None else 'open'}>"

    def __del__(self) -> None:
        if getattr(self, "_undo", None) is not None and self._owner == os.getpid():
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=1)
            self.close()

    def close(self) -> None:
        """End every sandbox of this engine and wait until nothing is left of them. Again: nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo.close()
            self.store.close()

    @functools.cached_property
    def images(self) -> Images:
        """The images in this engine's store: to load, save, list, tag, inspect and remove."""
        from pytest_sandbox_runtime.images.images import Images

        return Images(self.store, lambda: self._builder)

    @functools.cached_property
    def _builder(self) -> Builder:
        from pytest_sandbox_runtime.images.building.builder import Builder

        return Builder(self)

    @property
    def run_directory(self) -> str:
        """The directory that goes with this run, for what is in the making."""
        return self._run

    def listen(self) -> str:
        """Let other processes of this user join; returns the address for Engine.join."""
        self._ask(("listen",))
        return self._run

    def create(self, spec: SandboxSpec) -> Sandbox:
        """Start ``spec``; what was made before a failure is unmade, last first. Raises SandboxError."""
        self._check_open()
        declared = spec
        spec = self._enforceable(self._resolved(spec))
        job = self._jobs.of(spec)
        (_, name, directory, cgroup_paths), (pidfd, control) = self._ask(("create", job.request))
        with ExitStack() as undo:
            undo.callback(self._forget, str(name))
            undo.callback(os.close, pidfd)
            channel = undo.enter_context(socket.socket(fileno=control))
            undo.callback(_kill, pidfd, wait=_is_seen_outside(spec))
            root = self._await_ready(channel, spec)
            undo.callback(os.close, root)
            started = Started(
                name=str(name),
                control=channel,
                pidfd=pidfd,
                root=root,
                seen=self._seen,
                directory=self._seen(str(directory)),
                tree=job.tree,
                uid=job.uid,
                cgroup_paths=cgroup_paths,
                keep=lambda about: self._keep(str(name), spec, job.tree, about),
                commit=lambda upper: self._commit(declared, upper),
                again=lambda image: self.create(replace(declared, image=image)),
                last_words=lambda: _last_words(self._run),
                namespaces=job.namespaces,
            )
            sandbox = Sandbox(spec, started, undo)
        self._alive.add(sandbox)
        _allow_descriptors(len(self._alive))
        return sandbox

    def _commit(self, declared: SandboxSpec, upper: str) -> Image:
        if declared.image.is_host:
            hint = "start from Image.debian(), Image.archive() or Image.pull()"
            raise ImageError("a copy of this machine, which is another on each, cannot become an image", hint=hint)
        return Image.pull(self._builder.commit(declared.image, upper).digest)

    def _resolved(self, spec: SandboxSpec) -> SandboxSpec:
        if spec.image.is_host or spec.image.kind == "unpacked":
            return spec
        if spec not in self._specs:
            self._specs[spec] = self._builder.resolved(spec)
        return self._specs[spec]

    def _enforceable(self, spec: SandboxSpec) -> SandboxSpec:
        asked = [name for name in LIMITS if getattr(spec, name) is not None]
        if not asked:
            return spec
        refused = {name: why for name, why in limits_not_enforced().items() if name in asked}
        if refused and not self.settings.best_effort_limits:
            name, why = next(iter(refused.items()))
            raise UnsupportedError(
                f"{name}={getattr(spec, name)} cannot be enforced on this host: {why}",
                hint="give this user a delegated cgroup (systemd-run --user --scope -p Delegate=yes ...), or set "
                "sandbox_limits = best-effort",
            )
        without: dict[str, Any] = dict.fromkeys(refused)
        return replace(spec, **without)

    def leave(self) -> None:
        """Forget all of it in a fork of the engine's process, where none of it may be used or ended."""
        for sandbox in list(self._alive):
            sandbox.let_go()
        # Held, not run: it is for the process that this one is a fork of to wait for its supervisor.
        self._abandoned, self._undo = self._undo, None
        self._channel.close()
        os.close(self._memory)

    def plan(self, spec: SandboxSpec) -> tuple[Step, ...]:
        """Return the mount plan of ``spec``, to print or to compare."""
        return self._jobs.plan(self._resolved(spec))

    def _seen(self, path: str) -> str:
        """Return ``path``, which the supervisor's mount namespace has, as this process can reach it."""
        return path.replace(MEMORY, f"/proc/self/fd/{self._memory}", 1) if path.startswith(MEMORY) else path

    # Talking to the supervisor

    def _greet(self) -> int:
        pidfd = os.pidfd_open(os.getpid())
        try:
            _, (memory,) = self._ask(("hello",), (pidfd,))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(pidfd)
        if self._undo is not None:
            self._undo.callback(os.close, memory)
        return memory

    def _ask(self, message: tuple[object, ...], fds: tuple[int, ...] = ()) -> tuple[tuple[Any, ...], list[int]]:
        self._check_open()
        with self._lock:
            try:
                # One that has died may have said why before.
                with contextlib.suppress(BrokenPipeError):
                    send(self._channel, message, fds)
                received = receive(self._channel)
            except ConnectionError:
                received = None
        if received is None:
            raise EngineError(
                "the supervisor of this run has died, and all its sandboxes with it", hint=_last_words(self._run)
            )
        (word, *operands), got = received
        if word == "failed":
            raise _start_error(operands)
        return (word, *operands), got

    def _await_ready(self, control: socket.socket, spec: SandboxSpec) -> int:
        try:
            received = receive(control)
        except ConnectionError:
            received = None
        if received is None:
            raise StartError(
                f"the init of a sandbox of {spec.image} died while it was being made", hint=_last_words(self._run)
            )
        (word, *operands), fds = received
        if word == "failed":
            raise _start_error(operands, spec)
        return fds[0]

    def _forget(self, name: str) -> None:
        if self._undo is not None:
            with self._lock, contextlib.suppress(OSError):
                send(self._channel, ("remove", name, name in self._kept))
            self._kept.discard(name)

    def _keep(self, name: str, spec: SandboxSpec, tree: Tree, about: str) -> str:
        if not self.settings.on_disk:
            msg = "what this sandbox has written is in memory, and cannot be kept"
            raise UnsupportedError(msg, hint="set on_disk in the engine's settings")
        from pytest_sandbox_runtime.kept import Kept, record

        kept = Kept(
            path=kept_path(self._run, name),
            about=about,
            spec=spec,
            prefixes=tuple(overlay.prefix for overlay in tree.overlays),
            show=self.settings.show,
            needed=self.settings.needed,
        )
        record(kept)
        self._kept.add(name)
        return kept.path

    def _check_open(self) -> None:
        if self._undo is None:
            raise SandboxClosedError("the engine was closed")
        if self._owner != os.getpid():
            raise EngineError("the engine belongs to the process that opened it", hint="open one in the forked process")


def _check_disk(settings: EngineSettings, store: str) -> None:
    if settings.on_disk and not can_be_upper(store):
        raise UnsupportedError(
            f"what sandboxes write cannot be kept in {store}: overlayfs takes no upper directory there",
            hint="put the store on a disk with PYTEST_SANDBOX_HOME: neither on an overlay, as a container's root is, "
            "nor on a network's file system",
        )


def _allow_descriptors(sandboxes: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if sandboxes == _MANY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _launch(run: str, channel: int, lock: int) -> subprocess.Popen[bytes]:
    mode = "root" if is_privileged() else subordinate_ids()
    with open(os.path.join(run, "supervisor.log"), "wb") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                _SUPERVISOR,
                str(channel),
                str(lock),
                run,
                mode,
                "disk" if can_be_upper(run) else "tmpfs",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(channel, lock),
            env={"LD_BIND_NOW": "1"},
        )


def _await_end(supervisor: subprocess.Popen[bytes]) -> None:
    try:
        supervisor.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()


def _last_words(run: str) -> str:
    with contextlib.suppress(OSError), open(os.path.join(run, "supervisor.log"), encoding="utf-8") as log:
        return log.read().strip()[-2000:]
    return ""


def _is_seen_outside(spec: SandboxSpec) -> bool:
    """Whether what dies in a sandbox could, for a moment, still be noticed by anybody but its processes."""
    return spec.network == "host" or any(isinstance(mount, Mount) and not mount.read_only for mount in spec.mounts)


def _kill(pidfd: int, *, wait: bool) -> None:
    """Kill the init behind ``pidfd``, whose end is that of all that the sandbox has in the kernel."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    if wait:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll()


def _start_error(operands: list[Any], spec: SandboxSpec | None = None) -> SandboxError:
    step, call, code, subject = operands
    what = f"cannot make a sandbox of {spec.image}" if spec else "cannot make a sandbox"
    said = os.strerror(code) + (f" ({call} {subject})".replace("( ", "(") if call or subject else "")
    kind = EngineError if step == START else StartError
    return kind(f"{what}: could not {step}: {said}", hint=explain(call, code))
