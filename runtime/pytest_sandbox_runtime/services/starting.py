"""PYTEST_DONT_REWRITE. Services and what they depend on: made in order, started side by side when those are ready.

Images are made first, at once; then the sandboxes, one after the other, so that addresses are the same each time and
every name is known from the start; then the programs.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import ServiceError
from pytest_sandbox_runtime.services.live_service import LiveService, Parts, health_of, launch, needs_health
from pytest_sandbox_runtime.specs.service import in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.live_network import Join, LiveNetwork
    from pytest_sandbox_runtime.sandbox import Sandbox
    from pytest_sandbox_runtime.specs.service import Service

    Prepared = tuple[Service, dict[str, Any]]


def start_with_dependencies(
    engine: Engine,
    service: Service,
    network: LiveNetwork,
    made: Callable[[Service, Sandbox], object] | None = None,
) -> LiveService:
    """Return ``service`` when it and all that it depends on are ready; those end when it does: see Engine.start."""
    ordered = in_order((service,))
    with ThreadPoolExecutor(len(ordered), thread_name_prefix="services") as pool, ExitStack() as undo:
        prepared = list(pool.map(lambda one: _prepare(engine, one, network), ordered))
        placed = [Placed(engine, one, [network.join(*one.aliases)], config) for one, config in prepared]
        for place in placed:
            undo.callback(place.close)
            if made is not None:
                made(place.service, place.sandbox)
        ready: dict[Service, Future[LiveService]] = {}
        for one, place in zip(ordered, placed):  # noqa: B905  one for each
            ready[one] = pool.submit(_start_behind, place, [ready[other] for other in one.depends_on])
        lives = [future.result() for future in ready.values()]
        undo.pop_all()
    live = lives.pop()
    live.depend_on(lives)
    return live


def _start_behind(place: Placed, before: list[Future[LiveService]]) -> LiveService:
    for future in before:
        future.result()
    live = place.start()
    live.wait()
    return live


def _prepare(engine: Engine, service: Service, network: LiveNetwork) -> Prepared:
    """Return ``service`` without seeds, with the configuration of its image, which is made where it is missing."""
    if service.seeds:
        from pytest_sandbox_runtime.services.seeding import seeded

        service = seeded(engine, service, network)
    config = {} if service.image.is_host else engine.images.config(service.image)
    if needs_health(service.readiness()) and health_of(config) is None:
        hint = "give the image a .healthcheck(), or wait for something else with ready="
        raise ServiceError(f"{service} is to be healthy, and its image has no HEALTHCHECK", hint=hint)
    return service, config


class Placed:
    """A service whose sandbox is there, and whose program is yet to start."""

    def __init__(self, engine: Engine, service: Service, joins: Sequence[Join], config: dict[str, Any]) -> None:
        self.service = service
        self._config = config
        self._network = joins[0].network if joins else None
        self.sandbox: Sandbox = engine.create(service.spec(), joins)
        self._log = os.path.join(engine.run_directory, f"service-{self.sandbox.name}.log")
        self._live: LiveService | None = None

    def start(self) -> LiveService:
        """Start the program; returns at once."""
        with ExitStack() as undo:
            undo.enter_context(self.sandbox)
            process = launch(self.service, self.sandbox, self._config, self._log, undo)
            parts = Parts(self.service, self.sandbox, self._network, process, self._config, self._log)
            self._live = LiveService(parts, undo)
        return self._live

    def close(self) -> None:
        """End it, whether it was started or not."""
        (self._live or self.sandbox).close()
