"""PYTEST_DONT_REWRITE. Services and what they depend on: started side by side, each when those are ready, each once."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import ServiceError
from pytest_sandbox_runtime.services.live_service import LiveService, Parts, health_of, launch, needs_health
from pytest_sandbox_runtime.specs.service import in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.live_network import Join, LiveNetwork
    from pytest_sandbox_runtime.specs.service import Service


def start_with_dependencies(engine: Engine, service: Service, network: LiveNetwork) -> LiveService:
    """Return ``service`` when it and all that it depends on are ready; those end when it does."""
    started = start_all(engine, (service,), network)
    live = started.pop(service)
    live.own(started.values())
    return live


def start_all(engine: Engine, services: Sequence[Service], network: LiveNetwork) -> dict[Service, LiveService]:
    """Return ``services``, and all that they depend on, when they are ready; raises what the first met that is not."""
    ordered = in_order(services)
    if len(ordered) == 1:
        return {ordered[0]: start(engine, ordered[0], network)}
    futures: dict[Service, Future[LiveService]] = {}
    with ThreadPoolExecutor(len(ordered), thread_name_prefix="services") as pool:
        for service in ordered:
            before = [futures[one] for one in service.depends_on]
            futures[service] = pool.submit(_start_behind, engine, service, network, before)
    errors = [error for future in futures.values() if (error := future.exception())]
    if errors:
        for future in reversed(futures.values()):
            if not future.exception():
                future.result().close()
        raise errors[0]
    return {service: future.result() for service, future in futures.items()}


def _start_behind(
    engine: Engine, service: Service, network: LiveNetwork, before: list[Future[LiveService]]
) -> LiveService:
    for future in before:
        future.result()
    return start(engine, service, network)


def start(engine: Engine, service: Service, network: LiveNetwork) -> LiveService:
    """Return ``service``, on ``network`` and ready; raises ServiceError, or what kept its sandbox from being made."""
    spec = service.spec()
    if service.seeds:
        from pytest_sandbox_runtime.services.seeding import seeded

        service = seeded(engine, service, network)
        spec = service.spec()
    config = {} if spec.image.is_host else engine.images.config(spec.image)
    if needs_health(service.readiness()) and health_of(config) is None:
        hint = "give the image a .healthcheck(), or wait for something else with ready="
        raise ServiceError(f"{service} is to be healthy, and its image has no HEALTHCHECK", hint=hint)
    live = launch_service(engine, service, [network.join(*service.aliases)], config)
    try:
        live.wait()
    except BaseException:
        live.close()
        raise
    return live


def launch_service(engine: Engine, service: Service, joins: Sequence[Join], config: dict[str, Any]) -> LiveService:
    """Return ``service``, whose image has the configuration ``config``, as soon as its program was started."""
    with ExitStack() as undo:
        sandbox = undo.enter_context(engine.create(service.spec(), joins))
        log = os.path.join(engine.run_directory, f"service-{sandbox.name}.log")
        process = launch(service, sandbox, config, log, undo)
        network = joins[0].network if joins else None
        return LiveService(Parts(service, sandbox, network, process, config, log), undo)
