"""PYTEST_DONT_REWRITE. The client's side of a run: turns specs into sandboxes, and builds their images."""

from __future__ import annotations

import functools
import os
import resource
import socket
import weakref
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.capabilities import limits_not_enforced
from pytest_sandbox_runtime.cgroups import OomWatch
from pytest_sandbox_runtime.connection import Connection
from pytest_sandbox_runtime.control import Control, kill
from pytest_sandbox_runtime.errors import ImageError, UnsupportedError
from pytest_sandbox_runtime.forwarding import forwarder, target_of
from pytest_sandbox_runtime.handle import Handle
from pytest_sandbox_runtime.images.home import default_store
from pytest_sandbox_runtime.images.store import Store
from pytest_sandbox_runtime.jobs import LIMITS, Jobs
from pytest_sandbox_runtime.listening import Listeners
from pytest_sandbox_runtime.reachable import Started
from pytest_sandbox_runtime.sandbox import Sandbox
from pytest_sandbox_runtime.specs.image import Image
from pytest_sandbox_runtime.specs.sandbox import Mount
from pytest_sandbox_runtime.state import can_be_upper
from pytest_sandbox_runtime.supervisor.removal import kept_path
from pytest_sandbox_runtime.violations import Violations
from pytest_sandbox_runtime.volumes import with_volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Self

    from pytest_sandbox_runtime.compose.model import Project
    from pytest_sandbox_runtime.compose.running import LiveProject
    from pytest_sandbox_runtime.images.building.builder import Builder
    from pytest_sandbox_runtime.images.images import Images
    from pytest_sandbox_runtime.images.lock import Lock
    from pytest_sandbox_runtime.live_network import Join, LiveNetwork
    from pytest_sandbox_runtime.networking import Networking
    from pytest_sandbox_runtime.rootfs.plan import Tree
    from pytest_sandbox_runtime.rootfs.steps import Step
    from pytest_sandbox_runtime.services.live_service import LiveService
    from pytest_sandbox_runtime.specs import SandboxSpec
    from pytest_sandbox_runtime.specs.network import Network
    from pytest_sandbox_runtime.specs.service import Service
    from pytest_sandbox_runtime.violations import Violation

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
    each begins with what that sandbox had changed.

    Of images: ``rebuild`` takes no layer from earlier runs; with ``offline`` whatever is not in the store and would
    need the network raises OfflineError; ``lock`` says what tags and suites of packages mean; ``cache_from`` are
    repositories of registries where layers are looked for before they are made, and ``cache_to`` one where those that
    are used go. ``report`` is told a line for each step of a build as it begins, with ``explain`` why it is not in the
    cache, too; ``done`` the same line when the step has ended, however it ended, and the seconds that it took;
    ``amount`` the line of a pull or a push, and how many bytes of how many are there. All are called from several
    threads, as stages are built side by side.
    """

    store: str | None = None
    best_effort_limits: bool = False
    show: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    on_disk: bool = False
    kept: str | None = None
    rebuild: bool = False
    offline: bool = False
    lock: Lock | None = None
    cache_from: tuple[str, ...] = ()
    cache_to: str | None = None
    explain: bool = False
    report: Callable[[str], None] = _say_nothing
    done: Callable[[str, float], None] = _say_nothing
    amount: Callable[[str, int, int], None] = _say_nothing


class Engine(Handle):
    """A run: all the sandboxes made through it end with it, however it ends. Safe to use from several threads."""

    def __init__(self, settings: EngineSettings, store: Store, connection: Connection) -> None:
        self.settings = settings
        self.store = store
        self._connection = connection
        self._specs: dict[SandboxSpec, SandboxSpec] = {}
        self._kept: set[str] = set()
        self._jobs = Jobs(settings, self.store, connection.seen)
        # Those that are not closed, by their names.
        self._alive: weakref.WeakValueDictionary[str, Sandbox] = weakref.WeakValueDictionary()
        self._violations = Violations(connection.run)

    @classmethod
    def open(cls, settings: EngineSettings | None = None) -> Self:
        """Start a supervisor; raises UnsupportedError or EngineError where this host does not let it."""
        settings = settings or EngineSettings()
        store = os.path.abspath(settings.store or default_store(os.environ))
        _check_disk(settings, store)
        return cls._over(Connection.launch(store), settings)

    @classmethod
    def join(cls, address: str, settings: EngineSettings) -> Self:
        """Become one more client of the supervisor whose ``address`` Engine.listen has returned."""
        return cls._over(Connection.join(address), settings)

    @classmethod
    def _over(cls, connection: Connection, settings: EngineSettings) -> Self:
        with ExitStack() as undo:
            undo.callback(connection.close)
            engine = cls(settings, Store(os.path.dirname(os.path.dirname(connection.run))), connection)
            undo.pop_all()
        return engine

    def __repr__(self) -> str:
        return f"<Engine {self.run_directory} {'open' if self._connection.is_open else 'closed'}>"

    @property
    def _is_forgotten(self) -> bool:
        connection = getattr(self, "_connection", None)
        return connection is not None and connection.is_open and connection.is_ours

    def close(self) -> None:
        """End every sandbox of this engine and wait until nothing is left of them. Again: nothing."""
        self._connection.close()
        self.store.close()

    def leave(self) -> None:
        """Forget all of it in a fork of the engine's process, where none of it may be used or ended."""
        for sandbox in list(self._alive.values()):
            sandbox.let_go()
        self._connection.leave()

    @functools.cached_property
    def images(self) -> Images:
        """The images in this engine's store: to load, save, list, tag, inspect and remove."""
        from pytest_sandbox_runtime.images.building.telling import teller
        from pytest_sandbox_runtime.images.images import Images

        return Images(
            self.store,
            lambda: self._builder,
            offline=self.settings.offline,
            lock=self.settings.lock,
            telling=teller(self.settings),
        )

    @functools.cached_property
    def _builder(self) -> Builder:
        from pytest_sandbox_runtime.images.building.builder import Builder

        return Builder(self)

    @property
    def run_directory(self) -> str:
        """The directory that goes with this run, for what is in the making."""
        return self._connection.run

    def listen(self) -> str:
        """Let other processes of this user join; returns the address for Engine.join."""
        self._connection.ask(("listen",))
        return self.run_directory

    def plan(self, spec: SandboxSpec) -> tuple[Step, ...]:
        """Return the mount plan of ``spec``, to print or to compare."""
        return self._jobs.plan(self._resolved(spec))

    def network(self, spec: Network | None = None) -> LiveNetwork:
        """Make a network for sandboxes to join; raises SpecError where its addresses are another's."""
        self._connection.check_open()
        return self._networking.open(spec)

    @functools.cached_property
    def _networking(self) -> Networking:
        from pytest_sandbox_runtime.networking import Networking

        return Networking(self._connection, self._alive)

    def create(self, spec: SandboxSpec, networks: Iterable[LiveNetwork | Join] = ()) -> Sandbox:
        """Start ``spec`` on ``networks``; what was made before a failure is unmade, last first. Raises SandboxError.

        A network that is no Join is joined without aliases: see LiveNetwork.join. Its host name, where it has one of
        its own, is a name of the sandbox on all of them.
        """
        connection = self._connection
        connection.check_open()
        declared = spec
        spec = with_volumes(self._enforceable(self._resolved(spec)), self.run_directory)
        joins = tuple(network if isinstance(network, tuple) else network.join() for network in networks)
        if not isinstance(spec.network, str):
            return self._create_on_own(declared, joins)
        job = self._jobs.of(spec, self._networking.nameservers(spec, joins) if joins else None)
        requests = self._networking.requests(spec, joins) if joins else ()
        with self._networking.explained(joins) if joins else nullcontext():
            made, (pidfd, theirs) = connection.ask(("create", job.request, requests))
        _, name, directory, cgroup_paths, addresses = made
        oom = OomWatch(cgroup_paths if spec.memory is not None else None)
        with ExitStack() as undo:
            undo.callback(self._forget, name)
            undo.callback(os.close, pidfd)
            channel = undo.enter_context(socket.socket(fileno=theirs))
            control = Control(name, channel, oom, connection.last_words)
            undo.callback(lambda: kill(pidfd, wait=_is_seen_outside(spec) and not control.is_idle))
            listeners = Listeners(control)
            undo.callback(listeners.close)
            root = connection.root_of(channel, spec)
            undo.callback(os.close, root)
            started = Started(
                name=name,
                control=control,
                pidfd=pidfd,
                root=root,
                seen=connection.seen,
                directory=directory,
                tree=job.tree,
                uid=job.uid,
                cgroup_paths=cgroup_paths,
                oom=oom,
                keep=lambda about: self._keep(name, spec, job.tree, about),
                commit=lambda upper: self._commit(declared, upper),
                again=lambda image: self.create(replace(declared, image=image), joins),
                namespaces=job.namespaces,
                forward=forwarder(connection, name),
                connection=connection,
                listeners=listeners,
                joins=tuple(zip(joins, addresses)),  # noqa: B905  the supervisor has answered each
            )
            for port, protocol, outside in spec.ports:
                started.forward(target_of(port, protocol), port=outside)
            sandbox = Sandbox(spec, started, undo)
        self._alive[name] = sandbox
        self._violations.expect(name)
        if joins:
            self._networking.greet(sandbox)
        _allow_descriptors(len(self._alive))
        return sandbox

    def _create_on_own(self, spec: SandboxSpec, joins: tuple[Join, ...]) -> Sandbox:
        assert not isinstance(spec.network, str)  # the caller has looked
        with ExitStack() as undo:
            network = undo.enter_context(self._networking.open_for_one(spec.network, joins))
            sandbox = self.create(replace(spec, network="none"), (*joins, network))
            sandbox.own(undo.pop_all())
        return sandbox

    def violations(self) -> list[Violation]:
        """Return what the networks of this engine's sandboxes have refused since this was called last."""
        return self._violations.new()

    def shared_network(self) -> LiveNetwork:
        """Return the network of what all clients of this run share; it ends with the last that uses it."""
        from pytest_sandbox_runtime.services.sharing import shared_network

        return shared_network(self, self._connection)

    def share(self, service: Service, network: LiveNetwork) -> LiveService:
        """Return ``service`` on the run's ``shared_network``, started by the first client of this run that asks."""
        from pytest_sandbox_runtime.services.sharing import shared_service

        return shared_service(self, self._connection, service, network)

    def compose(
        self, project: Project, images: Mapping[str, Image] | None = None, expose: Iterable[int] = ()
    ) -> LiveProject:
        """Start a project that compose.load has read; returns it when its services are up. Raises SandboxError.

        ``images`` are what names in the file, and in its Dockerfiles, stand for; ``expose`` are ports of this machine's
        loopback device that its services reach at "host-gateway".
        """
        from pytest_sandbox_runtime.compose.running import up

        return up(self, project, images, expose)

    def start(
        self,
        service: Service,
        network: LiveNetwork,
        made: Callable[[Service, Sandbox], object] | None = None,
    ) -> LiveService:
        """Start ``service``, and what it depends on, on ``network``; returns it when it is ready. Raises SandboxError.

        Those that it depends on are ``dependencies`` of it, and end with it. ``made`` is told of each one's sandbox
        before anything runs in it.
        """
        from pytest_sandbox_runtime.services.starting import start_with_dependencies

        return start_with_dependencies(self, service, network, made)

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

    def _forget(self, name: str) -> None:
        self._connection.tell(("remove", name, name in self._kept))
        self._kept.discard(name)
        self._alive.pop(name, None)
        self._violations.forget(name)

    def _keep(self, name: str, spec: SandboxSpec, tree: Tree, about: str) -> str:
        if not self.settings.on_disk:
            msg = "what this sandbox has written is in memory, and cannot be kept"
            raise UnsupportedError(msg, hint="set on_disk in the engine's settings")
        from pytest_sandbox_runtime.kept import Kept, record

        kept = Kept(
            path=kept_path(self.run_directory, name),
            about=about,
            spec=spec,
            prefixes=tuple(overlay.prefix for overlay in tree.overlays),
            show=self.settings.show,
            needed=self.settings.needed,
        )
        record(kept)
        self._kept.add(name)
        return kept.path


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


def _is_seen_outside(spec: SandboxSpec) -> bool:
    """Whether what dies in a sandbox could, for a moment, still be noticed by anybody but its processes."""
    return spec.network == "host" or any(isinstance(mount, Mount) and not mount.read_only for mount in spec.mounts)
