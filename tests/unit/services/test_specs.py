"""Declarations of services, and what they wait for."""

from __future__ import annotations

import pickle
import signal
from typing import Any

import pytest

from pytest_sandbox_runtime import Image, Service, SpecError, ready
from pytest_sandbox_runtime.services.seeding import identity
from pytest_sandbox_runtime.specs.service import in_order, restart_of, signal_of


def test_a_service_is_a_value() -> None:
    one, other = (Service(Image.host(), command=["redis-server"], ports=(6379,), env={"A": "1"}) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.with_env(B="2").env == (("A", "1"), ("B", "2"))


def test_without_more_it_waits_for_its_ports() -> None:
    assert Service(command="x", ports=(80, 81)).readiness() == ready.all_of(ready.port(80), ready.port(81))
    assert Service(command="x").readiness() is None
    assert Service(command="x", ports=(80,), ready=ready.log("up")).readiness() == ready.log("up")


def test_what_is_depended_on_comes_first_and_once() -> None:
    database, cache = Service(command="db", name="db"), Service(command="cache", name="cache")
    app = Service(command="app", name="app", depends_on=(database, cache))
    web = Service(command="web", depends_on=(app, cache))
    assert in_order((web, database)) == (database, cache, app, web)


@pytest.mark.parametrize(
    ("policy", "meaning"),
    [
        ("no", None),
        ("always", (True, -1)),
        ("unless-stopped", (True, -1)),
        ("on-failure", (False, -1)),
        ("on-failure:3", (False, 3)),
    ],
)
def test_policies_mean_what_dockers_do(policy: str, meaning: tuple[bool, int] | None) -> None:
    assert restart_of(policy) == meaning


@pytest.mark.parametrize("name", ["SIGINT", "INT", "int", "2"])
def test_a_signal_is_named_in_any_way(name: str) -> None:
    assert signal_of(name) == signal.SIGINT


def test_services_are_told_apart_by_all_that_makes_them() -> None:
    plain = Service(command="x", name="db")
    seeds = (plain.seed("one"), plain.seed("two"), plain.seed("one").seed("two"))
    others = (Service(command="y", name="db"), Service(command="x", name="db", env={"A": "1"}))
    assert len({identity(service) for service in (plain, *seeds, *others)}) == 6
    assert identity(plain.seed(lambda live: live)) != identity(plain.seed(lambda live: None))  # noqa: ARG005
    filled = [identity(plain.seed(fill_with(rows))) for rows in (1, 1, 2)]
    assert filled[0] == filled[1] != filled[2]


def fill_with(rows: int) -> Any:
    return lambda live: live.run(["fill", str(rows)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"image": "redis"}, "a service of 'redis', which is no Image"),
        ({"name": "a b"}, "'a b' is not the name of a service"),
        ({"ready": "soon"}, "ready='soon' is nothing to wait for"),
        ({"share": "world"}, "share='world' is none of test, worker, run"),
        ({"ports": [0]}, "port 0 is no number from 1 to 65535"),
        ({"depends_on": ["db"]}, "depends_on has 'db', which is no Service"),
        ({"depends_on": [Service(command="x")]}, "has no name, by which what depends on it could find it"),
        ({"stop_signal": "SIGNOTHING"}, "'SIGNOTHING' is no signal"),
        ({"timeout": "soon"}, "'soon' is no duration"),
        ({"sandbox": {"memroy": "1G"}}, "has words that no sandbox knows"),
        ({"aliases": ["-"]}, "'-' is not a name by which a service could be found"),
        ({"command": []}, "is no command"),
    ],
)
def test_nonsense_is_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as told:
        Service(**{"command": "x", **words})
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ready.log("("), "is no regular expression"),
        (lambda: ready.http("health"), "the path 'health' does not begin with /"),
        (lambda: ready.file("there"), "is no absolute path"),
        (ready.all_of, "is nothing to wait for"),
        (lambda: ready.port(80, "sctp"), "is neither tcp nor udp"),
        (lambda: Service(command="x").seed("true", inputs=["/nowhere"]), "the input /nowhere of a seed is not there"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(make: Any, said: str) -> None:
    with pytest.raises(SpecError) as told:
        make()
    assert said in str(told.value)
