"""Services that all clients of a run share."""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Engine, EngineSettings, SandboxSpec, Service, ServiceError, UnsupportedError, ready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("overlay-on-host", "networks")

SERVICE = Service(command="echo up; exec sleep 1000", name="db", ready=ready.log("up"), share="run")


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[tuple[Engine, Engine]]:
    settings = EngineSettings(store=str(tmp_path / "store"))
    with Engine.open(settings) as first, Engine.join(first.listen(), settings) as second:
        yield first, second


def test_it_is_started_once_and_both_use_it(engines: tuple[Engine, Engine]) -> None:
    first, second = engines
    with first.shared_network() as here, second.shared_network() as there:
        assert here.number == there.number
        with first.share(SERVICE, here) as one, second.share(SERVICE, there) as other:
            assert one.sandbox.name == other.sandbox.name
            one.sandbox.write_text("/tmp/note", "seen")
            assert other.run(["cat", "/tmp/note"]).stdout == "seen"
            assert other.logs() == "up\n"
            with second.create(SandboxSpec(), [there]) as client:
                assert client.run("getent hosts db").returncode == 0


def test_it_outlives_who_made_it_and_ends_with_the_last(engines: tuple[Engine, Engine]) -> None:
    first, second = engines
    with second.shared_network() as there:
        maker = second.share(SERVICE, there)
        with first.shared_network() as here:
            user = first.share(SERVICE, here)
            init = os.pidfd_open(user.sandbox.pid)
            maker.close()
            assert user.run(["true"]).returncode == 0
            assert select.select([init], [], [], 0)[0] == []
            user.close()
            assert select.select([init], [], [], 5)[0]
            os.close(init)


def test_both_hear_of_its_end(engines: tuple[Engine, Engine]) -> None:
    first, second = engines
    with (
        first.shared_network() as here,
        second.shared_network() as there,
        first.share(SERVICE, here) as one,
        second.share(SERVICE, there) as other,
    ):
        one.process.send_signal(signal.SIGTERM)
        for live in (one, other):
            assert live.process.wait(5) == -signal.SIGTERM
            with pytest.raises(ServiceError, match="service db is gone: its process was killed by SIGTERM"):
                live.check()


def test_who_asks_meanwhile_waits_for_it(engines: tuple[Engine, Engine]) -> None:
    names: list[str] = []

    def use(engine: Engine, done: threading.Barrier) -> None:
        with engine.shared_network() as network, engine.share(SERVICE, network) as live:
            names.append(live.sandbox.name)
            done.wait(10)

    done = threading.Barrier(2)
    users = [threading.Thread(target=use, args=(engine, done)) for engine in engines]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert len(names) == 2
    assert len(set(names)) == 1


def test_what_could_not_be_made_is_tried_by_the_next(engines: tuple[Engine, Engine]) -> None:
    first, second = engines
    bad = Service(command="exit 1", name="bad", ports=(1,), share="run")
    with first.shared_network() as here, second.shared_network() as there:
        for engine, network in ((first, here), (second, there), (first, here)):
            with pytest.raises(ServiceError, match="service bad was not ready"):
                engine.share(bad, network)


def test_what_belongs_to_all_is_changed_by_none(engines: tuple[Engine, Engine]) -> None:
    first, _ = engines
    with first.shared_network() as network, first.share(SERVICE, network) as live:
        with pytest.raises(ServiceError, match="is shared by the whole run, and cannot be started anew"):
            live.restart()
        with pytest.raises(UnsupportedError, match="cannot be kept, committed or forked"):
            live.sandbox.commit()
