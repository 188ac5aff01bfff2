"""Services that are filled once, and whose copies every test has for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Engine, EngineSettings, Image, Service, ServiceError, ready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_sandbox_runtime import LiveNetwork, LiveService

pytestmark = pytest.mark.needs("overlayfs", "networks", "static-busybox")

# Keeps what it has written, and says when it was asked to end.
SERVER = "mkdir -p /data; trap 'echo saved > /data/state; exit 0' TERM; echo up; while true; do sleep 1000 & wait; done"


@pytest.fixture
def service(base: Image) -> Service:
    return Service(base, command=SERVER, ready=ready.log("up"))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def engine(tmp_path: Path, said: list[str]) -> Iterator[Engine]:
    with Engine.open(EngineSettings(store=str(tmp_path / "store"), report=said.append)) as engine:
        yield engine


def seedings(said: list[str]) -> int:
    return sum("seeding" in line for line in said)


def test_a_command_seeds_once_and_every_start_has_a_copy(
    engine: Engine, network: LiveNetwork, service: Service, said: list[str]
) -> None:
    seeded = service.seed("echo 42 > /data/answer")
    for _ in range(2):
        with engine.start(seeded, network) as live:
            assert live.sandbox.read_text("/data/answer") == "42\n"
            assert live.sandbox.read_text("/data/state") == "saved\n"
            live.sandbox.write_text("/data/answer", "ruined")
    assert seedings(said) == 1


def test_a_function_seeds_and_its_code_is_the_key(
    engine: Engine, network: LiveNetwork, service: Service, said: list[str]
) -> None:
    def one(live: LiveService) -> None:
        live.sandbox.write_text("/data/answer", "one")

    def other(live: LiveService) -> None:
        live.sandbox.write_text("/data/answer", "other")

    for act in (one, other, one):
        with engine.start(service.seed(act), network) as live:
            assert live.sandbox.read_text("/data/answer") == act.__name__
    assert seedings(said) == 2


def test_an_input_that_changes_seeds_anew(
    engine: Engine, network: LiveNetwork, service: Service, said: list[str], tmp_path: Path
) -> None:
    schema = tmp_path / "schema"
    schema.mkdir()

    def load(live: LiveService) -> None:
        live.sandbox.put(schema / "table.sql", "/data/table.sql")

    for content in ("one", "one", "two"):
        (schema / "table.sql").write_text(content)
        with engine.start(service.seed(load, inputs=[schema]), network) as live:
            assert live.sandbox.read_text("/data/table.sql") == content
    assert seedings(said) == 2


def test_seeds_build_on_each_other(engine: Engine, network: LiveNetwork, service: Service) -> None:
    seeded = service.seed("echo one > /data/log").seed("echo two >> /data/log")
    with engine.start(seeded, network) as live:
        assert live.sandbox.read_text("/data/log") == "one\ntwo\n"


def test_a_seed_that_fails_keeps_nothing(
    engine: Engine, network: LiveNetwork, service: Service, tmp_path: Path
) -> None:
    marker = tmp_path / "fail"
    marker.touch()

    def load(live: LiveService) -> None:
        if marker.exists():
            raise LookupError("no data")
        live.sandbox.write_text("/data/answer", "42")

    with pytest.raises(LookupError, match="no data"):
        engine.start(service.seed(load), network)
    marker.unlink()
    with engine.start(service.seed(load), network) as live:
        assert live.sandbox.read_text("/data/answer") == "42"


def test_a_service_that_dies_of_its_seed_is_told(engine: Engine, network: LiveNetwork, base: Image) -> None:
    command = "trap 'echo lost; exit 5' TERM; echo up; while true; do sleep 1000 & wait; done"
    fragile = Service(base, command=command, ready=ready.log("up"))
    with pytest.raises(ServiceError, match="did not end cleanly after it was seeded: status 5\n(.|\n)*lost"):
        engine.start(fragile.seed("true"), network)


def test_a_health_check_of_the_image_is_waited_for(engine: Engine, network: LiveNetwork, base: Image) -> None:
    image = base.healthcheck("test -e /ready").cmd(["sh", "-c", "sleep 0.1; touch /ready; sleep 1000"])
    with engine.start(Service(image, ready=ready.healthy()), network) as live:
        assert live.sandbox.files.exists("/ready")
    with pytest.raises(ServiceError, match="is to be healthy, and its image has no HEALTHCHECK"):
        engine.start(Service(base, command="sleep 1000", ready=ready.healthy()), network)


def test_an_image_says_what_runs_and_by_which_signal_it_ends(engine: Engine, network: LiveNetwork, base: Image) -> None:
    image = base.entrypoint(["sh", "-c"]).cmd(["trap 'exit 9' INT; echo up; while true; do sleep 1000 & wait; done"])
    with engine.start(Service(image.stop_signal("SIGINT"), ready=ready.log("up")), network) as live:
        assert live.stop() == 9
