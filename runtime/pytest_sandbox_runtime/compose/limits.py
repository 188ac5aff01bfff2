"""PYTEST_DONT_REWRITE. What a service may use: ``deploy.resources``, its older words, ``ulimits``, ``scale``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pytest_sandbox_runtime.compose.fields import Section, count, number, size, whole
from pytest_sandbox_runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose.nodes import Node
    from pytest_sandbox_runtime.compose.problems import Problems

T = TypeVar("T")
# Those of setrlimit(2).
_ULIMITS = {"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"}
_ULIMITS |= {"rttime", "sigpending", "stack"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a service may use: ``memory`` in bytes, ``cpus`` in processors, ``pids`` processes; None for no limit."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """A limit of setrlimit(2) by its name without RLIMIT; -1 for no limit."""

    name: str
    soft: int
    hard: int


def parse_limits(service: Section) -> Limits:
    """Return the limits of a service; what is said twice has to be the same."""
    return Limits(
        memory=_either(service, "mem_limit", ("deploy", "resources", "limits", "memory"), size),
        cpus=_either(service, "cpus", ("deploy", "resources", "limits", "cpus"), number) or _quota(service),
        pids=_either(service, "pids_limit", ("deploy", "resources", "limits", "pids"), _pids),
    )


def parse_scale(service: Section) -> int:
    """Return how many of a service there are."""
    scale = _either(service, "scale", ("deploy", "replicas"), count, -1)
    return 1 if scale is None else scale


def parse_ulimits(node: Node, problems: Problems) -> tuple[Ulimit, ...]:
    """Return the ``ulimits`` of a service."""
    found = []
    for name, entry in node.entries.items():
        with problems.collecting():
            found.append(_ulimit(name, entry))
    return tuple(found)


def _either(
    service: Section, name: str, path: tuple[str, ...], convert: Callable[[Node], T], nothing: int = 0
) -> T | None:
    """Return what the older word or the path in ``deploy`` says; None where it is ``nothing``, or not said."""
    old, new = service.node.get(name), service.node.get(*path)
    values = []
    for node in (old, new):
        if node is not None:
            with service.problems.collecting():
                values.append(convert(node))
    if old and new and len(values) == 2 and values[0] != values[1]:
        service.problems.add(old.error(f"is not what {'.'.join(path)} says", "say it once"))
    return None if not values or values[-1] == nothing else values[-1]


def _pids(node: Node) -> int:
    return max(whole(node), 0)


def _quota(service: Section) -> float | None:
    quota, period = service.read("cpu_quota", whole, 0), service.read("cpu_period", count, 0)
    return quota / (period or 100_000) if quota > 0 else None


def _ulimit(name: str, node: Node) -> Ulimit:
    if name not in _ULIMITS:
        raise node.error(
            "there is no such limit", did_you_mean(name, sorted(_ULIMITS), "they are those of setrlimit(2)")
        )
    soft, hard = (whole(node.entries[kind]) if node.entries else whole(node) for kind in ("soft", "hard"))
    if min(soft, hard) < -1 or (hard != -1 and not -1 < soft <= hard):
        raise node.error(f"soft={soft} is more than hard={hard}" if min(soft, hard) >= -1 else "is less than -1")
    return Ulimit(name=name, soft=soft, hard=hard)
