"""``deploy.resources``, its older words, ``ulimits`` and ``scale``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.compose import Limits, Ulimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import ComposeService


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", Limits()),
        ("mem_limit: 256m", Limits(memory=256 << 20)),
        ("mem_limit: 1073741824", Limits(memory=1 << 30)),
        ("mem_limit: 2gb", Limits(memory=2 << 30)),
        ("mem_limit: 64b", Limits(memory=64)),
        ("mem_limit: 0", Limits()),
        ("cpus: 0.5", Limits(cpus=0.5)),
        ("cpus: '2'", Limits(cpus=2)),
        ("cpus: 0", Limits()),
        ("cpu_quota: 50000", Limits(cpus=0.5)),
        ("cpu_quota: 50000\ncpu_period: 25000", Limits(cpus=2)),
        ("cpu_quota: -1", Limits()),
        ("pids_limit: 10", Limits(pids=10)),
        ("pids_limit: -1", Limits()),
        ("deploy: {resources: {limits: {cpus: '0.50', memory: 50M, pids: 100}}}", Limits(memory=50 << 20, cpus=0.5, pids=100)),
        ("deploy: {resources: {limits: {memory: 1g}, reservations: {memory: 5m, cpus: 1}}}\nmem_limit: 1024m", Limits(memory=1 << 30)),
    ],
)  # fmt: skip
def test_a_limit_has_all_its_forms(service: Callable[..., ComposeService], text: str, limits: Limits) -> None:
    assert service(text).limits == limits


@pytest.mark.parametrize(
    ("text", "scale"),
    [("", 1), ("scale: 3", 3), ("scale: 0", 0), ("deploy: {replicas: 2, mode: replicated}", 2), ("scale: 2\ndeploy: {replicas: 2}", 2), ("deploy: {mode: global}", 1)],
)  # fmt: skip
def test_there_are_as_many_as_is_said(service: Callable[..., ComposeService], text: str, scale: int) -> None:
    assert service(text).scale == scale


def test_limits_of_processes_are_soft_and_hard(service: Callable[..., ComposeService]) -> None:
    web = service("ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}, memlock: -1, core: {soft: 0, hard: -1}}")
    assert web.ulimits == (
        Ulimit(name="nproc", soft=65535, hard=65535),
        Ulimit(name="nofile", soft=20000, hard=40000),
        Ulimit(name="memlock", soft=-1, hard=-1),
        Ulimit(name="core", soft=0, hard=-1),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mem_limit: much", "mem_limit: 'much' is no size\n  hint: write bytes, or for example \"256m\""),
        ("cpus: -1", "cpus: -1 is no number from 0 on"),
        ("cpus: some", "cpus: 'some' is no number from 0 on"),
        ("pids_limit: 1.5", "pids_limit: 1.5 is no whole number"),
        ("mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}", "mem_limit: is not what deploy.resources.limits.memory says\n  hint: say it once"),
        ("scale: 1\ndeploy: {replicas: 2}", "scale: is not what deploy.replicas says\n  hint: say it once"),
        ("scale: -1", "scale: -1 is less than 0"),
        ("container_name: web\nscale: 2", "container_name: names one container, and there are 2\n  hint: leave it out"),
        ("deploy: {mode: global-job}", "deploy.mode: 'global-job' is not known\n  hint: did you mean global?"),
        ("deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}", "deploy.resources.reservations.devices: is not supported\n  hint: a sandbox has no devices of the host; leave it out"),
        ("ulimits: {nofiles: 1}", "ulimits.nofiles: there is no such limit\n  hint: did you mean nofile?"),
        ("ulimits: {nofile: {soft: 2, hard: 1}}", "ulimits.nofile: soft=2 is more than hard=1"),
        ("ulimits: {nofile: {soft: -1, hard: 1}}", "ulimits.nofile: soft=-1 is more than hard=1"),
        ("ulimits: {nofile: -2}", "ulimits.nofile: is less than -1"),
        ("ulimits: {nofile: {soft: 2}}", "ulimits.nofile: lacks hard"),
    ],
)  # fmt: skip
def test_what_is_no_limit_is_said(mistake: Callable[..., str], text: str, said: str) -> None:
    assert mistake(text) == said
