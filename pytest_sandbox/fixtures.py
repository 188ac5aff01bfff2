"""The fixtures, and the one engine that they share. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_sandbox import marks
from pytest_sandbox.settings import SETTINGS, needed_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_sandbox.inside import Units
    from pytest_sandbox_runtime.capturing import Capture
    from pytest_sandbox_runtime.compose.running import LiveProject
    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.errors import SandboxError
    from pytest_sandbox_runtime.live_network import LiveNetwork
    from pytest_sandbox_runtime.sandbox import Sandbox
    from pytest_sandbox_runtime.services.live_service import LiveService
    from pytest_sandbox_runtime.specs import Image, SandboxSpec
    from pytest_sandbox_runtime.specs.service import Service

ENGINE = pytest.StashKey["Engine"]()
BROKER = pytest.StashKey[str]()
UNITS: pytest.StashKey[Units] = pytest.StashKey()
# Set in the process of a test inside, for good: whoever runs a test may do so there, and nowhere else.
IS_INSIDE = pytest.StashKey[bool]()
# The sandboxes that a test has started, or a wider fixture on its behalf.
STARTED = pytest.StashKey["list[Sandbox]"]()
# The services that are up: a test's own, and those of the run.
SERVICES = pytest.StashKey["list[LiveService]"]()
BEGAN = pytest.StashKey["dict[LiveService, int]"]()
FAILED = pytest.StashKey[bool]()
# The user property that tells JUnit, and xdist's controller, where a test's changed files are.
KEPT = "sandbox.kept"
# What is captured of a test, and the user property that tells where the packets are.
CAPTURES: pytest.StashKey[list[Capture]] = pytest.StashKey()
CAPTURED = "sandbox.capture"
# The user property that tells what a test was refused by its network.
REFUSED = "sandbox.refused"
# And what it has left behind.
LEFT = "sandbox.left"
STARTS = pytest.StashKey["list[tuple[float, str, str]]"]()


def engine_of(config: pytest.Config) -> Engine:
    """Return the run's engine, opened when it is first asked for; in a worker of xdist the controller's."""
    if ENGINE not in config.stash:
        import pytest_sandbox_runtime as runtime
        from pytest_sandbox import workers
        from pytest_sandbox.progress import progress_of

        lock = None
        if config.pluginmanager.hasplugin("sandbox-lock"):
            from pytest_sandbox.locking import LOCK

            lock = config.stash[LOCK]
        settings, progress = config.stash[SETTINGS], progress_of(config)
        how = runtime.EngineSettings(
            store=settings.store,
            best_effort_limits=settings.best_effort_limits,
            show=settings.show,
            needed=needed_paths(config),
            on_disk=settings.keep != "none",
            rebuild=settings.rebuild,
            offline=settings.offline,
            lock=lock,
            cache_from=settings.cache_from,
            cache_to=settings.cache_to,
            explain=settings.explain,
            report=progress.report,
            done=progress.done,
            amount=progress.amount,
        )
        broker = config.stash.get(BROKER, None)
        engine = runtime.Engine
        config.stash[ENGINE] = engine.open(how) if broker is None else engine.join(workers.ask(broker), how)
    return config.stash[ENGINE]


def start(item: pytest.Item, spec: SandboxSpec, networks: Sequence[LiveNetwork] = ()) -> Sandbox:
    """Start a sandbox on behalf of ``item``; a host that cannot make it fails or skips the test, as the user chose."""
    from pytest_sandbox_runtime.errors import SandboxError

    __tracebackhide__ = True
    began = time.perf_counter()
    try:
        engine = engine_of(item.config)
        with ExitStack() as undo:
            sandbox = undo.enter_context(engine.create(spec, networks))
            capture(item, engine, sandbox, "sandbox")
            undo.pop_all()
    except SandboxError as error:
        give_up(item.config, error)
    item.config.stash.setdefault(STARTS, []).append((time.perf_counter() - began, item.nodeid, str(spec.image)))
    item.stash.setdefault(STARTED, []).append(sandbox)
    return sandbox


def give_up(config: pytest.Config, error: SandboxError) -> NoReturn:
    """End the test with the error's own words, without a way through our internals."""
    from pytest_sandbox_runtime.errors import EngineError, UnsupportedError

    __tracebackhide__ = True
    if config.stash[SETTINGS].missing == "skip" and isinstance(error, (EngineError, UnsupportedError)):
        raise pytest.skip.Exception(str(error)) from None
    raise pytest.fail.Exception(str(error), pytrace=False) from None


def keep(item: pytest.Item, sandbox: Sandbox) -> tuple[str, str] | None:
    """Keep what the sandbox has changed, if the settings say so of a test that ended as this one did.

    Returns the user property that says where.
    """
    wanted = item.config.stash[SETTINGS].keep
    if wanted == "all" or (wanted == "failed" and item.stash.get(FAILED, False)):
        return KEPT, sandbox.keep(item.nodeid)
    return None


def capture(item: pytest.Item, engine: Engine, sandbox: Sandbox, label: str) -> None:
    """Capture what a sandbox that has just started sends, if the settings say so."""
    if item.config.stash[SETTINGS].capture != "none":
        from pytest_sandbox import capturing

        capturing.begin(item, engine, sandbox, label)


def end_captures(item: pytest.Item, report: pytest.TestReport) -> None:
    """Let the last report of a test say where its packets are kept, if so."""
    if item.stash.get(CAPTURES, []):
        from pytest_sandbox import capturing

        capturing.end(item, report)


INSIDE = "_sandbox_inside"


@pytest.fixture(name=INSIDE)
def _inside(request: pytest.FixtureRequest) -> None:
    """The machine that this test runs in."""
    if "tmp_path" in request.fixturenames or "tmp_path_factory" in request.fixturenames:
        # Where the run outside has one already, its /tmp is not the machine's; a worker's lies in its controller's.
        if (given := request.config.option.basetemp) is not None:
            os.makedirs(os.path.dirname(os.path.abspath(given)), mode=0o700, exist_ok=True)
        request.getfixturevalue("tmp_path_factory").getbasetemp().mkdir(parents=True, exist_ok=True, mode=0o700)


def show_machines(items: list[pytest.Item]) -> None:
    """Let --setup-plan and the like show the machine of each test inside, as what is set up first."""
    for item in items:
        names = getattr(item, "fixturenames", None)
        if names is not None and INSIDE not in names and marks.runs_inside(item):
            names.insert(0, INSIDE)


class SandboxFactory:
    """Makes sandboxes that live as long as the session, or until they are closed: see ``tmp_path_factory``."""

    def __init__(self, session: pytest.Session, undo: ExitStack) -> None:
        self._session = session
        self._undo = undo

    def __call__(
        self,
        image: Any = None,
        *,
        service: Service | None = None,
        network: Any = "none",
        aliases: Sequence[str] = (),
        **words: Any,
    ) -> Any:
        """Start a sandbox, or a service, and return it: a service when it is ready. Raises SandboxError.

        ``network`` is one or several that are up (see ``sandbox_network``), on which ``aliases`` are further names of
        it, or the marker's word; the other words are the marker's.
        """
        engine = engine_of(self._session.config)
        if service is not None:
            if image is not None or aliases or words or network == "none":
                from pytest_sandbox_runtime.errors import SpecError

                raise SpecError("a service is declared as a whole, and started with network= beside it only")
            return self._undo.enter_context(engine.start(service, network))
        if isinstance(network, str):
            joins, words["network"] = [], network
        else:
            joins = [one.join(*aliases) for one in (network if isinstance(network, (list, tuple)) else [network])]
        spec = marks.make_spec(self._session.config, image=image, **words)
        return self._undo.enter_context(engine.create(spec, joins))


@pytest.fixture(scope="session")
def sandbox_engine(pytestconfig: pytest.Config) -> Engine:
    """The engine of this run, for all that the other fixtures do not offer."""
    from pytest_sandbox_runtime.errors import SandboxError

    try:
        return engine_of(pytestconfig)
    except SandboxError as error:
        give_up(pytestconfig, error)


@pytest.fixture(scope="session")
def sandbox_factory(request: pytest.FixtureRequest) -> Iterator[SandboxFactory]:
    """Start sandboxes by hand, at any scope: ``sandbox_factory(image=..., memory=...)``; gone after the session."""
    with ExitStack() as undo:
        yield SandboxFactory(request.session, undo)


@pytest.fixture
def sandbox_network(sandbox_engine: Engine) -> Iterator[LiveNetwork]:
    """A network of this test's own, which its sandbox and its services are on."""
    with sandbox_engine.network() as network:
        yield network


@pytest.fixture(scope="session")
def sandbox_shared_network(sandbox_engine: Engine) -> Iterator[LiveNetwork]:
    """The network of the services that live longer than a test; sandboxes of the tests that use one are on it, too."""
    with sandbox_engine.network() as network:
        yield network


@pytest.fixture(scope="session")
def sandbox_run_network(sandbox_engine: Engine) -> Iterator[LiveNetwork]:
    """The network of the services that all workers of the run share; sandboxes of tests that use one are on it, too."""
    with sandbox_engine.shared_network() as network:
        yield network


NETWORKS = ("sandbox_network", "sandbox_shared_network", "sandbox_run_network")


def sandbox_service(service: Service, *, scope: Any = None, name: str | None = None) -> Any:
    """Return a fixture that is ``service``, ready: for each test where its ``share`` says so, else for the session.

    db = sandbox_service(Service(image, ports=[5432]), scope="module")
    """
    scope = scope or ("function" if service.share == "test" else "session")
    if scope == "function":

        @pytest.fixture(name=name)
        def of_test(request: pytest.FixtureRequest, sandbox_network: LiveNetwork) -> Iterator[LiveService]:
            yield from _serve(request, service, sandbox_network)

        return of_test

    if service.share == "run":

        @pytest.fixture(scope=scope, name=name)
        def of_run(request: pytest.FixtureRequest, sandbox_run_network: LiveNetwork) -> Iterator[LiveService]:
            yield from _serve(request, service, sandbox_run_network)

        return of_run

    @pytest.fixture(scope=scope, name=name)
    def shared(request: pytest.FixtureRequest, sandbox_shared_network: LiveNetwork) -> Iterator[LiveService]:
        yield from _serve(request, service, sandbox_shared_network)

    return shared


def sandbox_compose(
    path: str,
    *,
    scope: Any = "module",
    name: str | None = None,
    profiles: Sequence[str] = (),
    env_file: str | None = None,
    services: Sequence[str] = (),
    images: Mapping[str, Image] | None = None,
    expose: Sequence[int] = (),
) -> Any:
    """Return a fixture that is the project of a compose file, up: ``shop["web"].url()``.

    ``path`` is relative to the file that calls this; ``images`` are what names in the compose file, and in its
    Dockerfiles, stand for; ``expose`` are ports of this machine that its services reach at "host-gateway".
    """
    given = os.path.join(os.path.dirname(sys._getframe(1).f_globals.get("__file__", "")), path)

    @pytest.fixture(scope=scope, name=name)
    def project(request: pytest.FixtureRequest, sandbox_engine: Engine) -> Iterator[LiveProject]:
        from pytest_sandbox_runtime.compose import load
        from pytest_sandbox_runtime.errors import SandboxError

        try:
            read = load(given, profiles=profiles, env_file=env_file, services=services)
            live = sandbox_engine.compose(read, images, expose)
        except SandboxError as error:
            give_up(request.config, error)
        with live:
            up = (request.node if isinstance(request.node, pytest.Item) else request.config).stash
            running = [one for some in live.services.values() for one in some]
            up[SERVICES] = [*up.get(SERVICES, []), *running]
            yield live
            up[SERVICES] = [one for one in up[SERVICES] if one not in running]

    return project


def _serve(request: pytest.FixtureRequest, service: Service, network: LiveNetwork) -> Iterator[LiveService]:
    from pytest_sandbox_runtime.errors import SandboxError

    try:
        engine = engine_of(request.config)
        if service.share == "run":
            live = engine.share(service, network)
        else:
            live = engine.start(service, network, _captured(request.node, engine))
    except SandboxError as error:
        give_up(request.config, error)
    with live:
        up = (request.node if isinstance(request.node, pytest.Item) else request.config).stash.setdefault(SERVICES, [])
        up.append(live)
        yield live
        up.remove(live)


def _captured(node: object, engine: Engine) -> Callable[[Service, Sandbox], None] | None:
    """Return what captures the sandboxes of a test's own services."""
    if not isinstance(node, pytest.Item):
        return None
    item = node
    return lambda service, sandbox: capture(item, engine, sandbox, service.name or "service")


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A disposable machine for one test, as its marker declares it: started before the test, gone after it."""
    # As if it had asked for them itself, after them.
    networks = [request.getfixturevalue(name) for name in NETWORKS if name in request.fixturenames]
    with start(request.node, marks.spec_of(request.node), networks) as sandbox:
        yield sandbox
        if kept := keep(request.node, sandbox):
            request.node.user_properties.append(kept)
