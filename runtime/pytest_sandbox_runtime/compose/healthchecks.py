"""PYTEST_DONT_REWRITE. ``healthcheck``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.fields import Section, boolean, count, duration, text

if TYPE_CHECKING:
    from pytest_sandbox_runtime.compose.nodes import Node
    from pytest_sandbox_runtime.compose.problems import Problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """How to see that a service is well; each None is as the image says.

    ``test`` is an argv, or a line for the shell. With ``disable`` there is no check, though the image has one.
    """

    test: tuple[str, ...] | str | None = None
    disable: bool = False
    interval: float | None = None
    timeout: float | None = None
    start_period: float | None = None
    start_interval: float | None = None
    retries: int | None = None


def parse_healthcheck(node: Node, problems: Problems) -> Healthcheck:
    """Return the ``healthcheck`` of a service."""
    section = Section(node, problems)
    test = section.read("test", _test, None)
    disable = section.read("disable", boolean, default=False) or test == ()
    if disable:
        return Healthcheck(disable=True)
    return Healthcheck(
        test=test,
        interval=section.read("interval", duration, None),
        timeout=section.read("timeout", duration, None),
        start_period=section.read("start_period", duration, None),
        start_interval=section.read("start_interval", duration, None),
        retries=section.read("retries", count, None),
    )


def _test(node: Node) -> tuple[str, ...] | str | None:
    """Return the command; () for NONE, and None for what leaves it to the image."""
    if not isinstance(node.value, tuple):
        return text(node) or None
    said = [text(item) for item in node.value]
    if not said:
        return None
    kind, rest = said[0], said[1:]
    if kind == "NONE":
        return ()
    if kind not in {"CMD", "CMD-SHELL"}:
        raise node.error(f"a list begins with CMD, CMD-SHELL or NONE, and not with {kind!r}", "put CMD before it")
    if not rest:
        raise node.error(f"nothing follows {kind}", "name the command")
    return rest[0] if kind == "CMD-SHELL" else tuple(rest)
