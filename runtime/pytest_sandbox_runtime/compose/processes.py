"""PYTEST_DONT_REWRITE. How a service's process is stopped and started again, and what it may do."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.compose.fields import Section, count, one_of, text
from pytest_sandbox_runtime.compose.model import Restart
from pytest_sandbox_runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from pytest_sandbox_runtime.compose.nodes import Node

_POLICIES = ("no", "always", "on-failure", "unless-stopped")
_CONDITIONS = {"none": "no", "on-failure": "on-failure", "any": "always"}
_PULL_POLICIES = ("always", "never", "missing", "build", "daily", "weekly", "every_<duration>")
_EVERY = re.compile(r"every_([0-9]+[wdhms])+")


def parse_restart(service: Section) -> Restart:
    """Return when a service is started again: ``restart``, or in its absence ``deploy.restart_policy``."""
    if service.node.get("restart"):
        return service.read("restart", _restart, Restart())
    node = service.node.get("deploy", "restart_policy")
    if node is None:
        return Restart()
    section = Section(node, service.problems)
    condition = section.read("condition", one_of(tuple(_CONDITIONS)), "any")
    retries = section.read("max_attempts", count, None)
    policy = _CONDITIONS[condition]
    return Restart(policy=policy, retries=retries if policy == "on-failure" else None)


def _restart(node: Node) -> Restart:
    policy, colon, retries = text(node).partition(":")
    if policy not in _POLICIES:
        raise node.error(
            f"{policy!r} is no policy", did_you_mean(policy, _POLICIES, f"there is {', '.join(_POLICIES)}")
        )
    if colon and policy != "on-failure":
        raise node.error(f"{text(node)!r}: only on-failure takes a number of times", 'for example "on-failure:3"')
    return Restart(policy=policy, retries=count(node.having(retries)) if colon else None)


def pull_policy(node: Node) -> str:
    """Return when an image is fetched."""
    said = text(node)
    if said == "if_not_present":
        return "missing"
    if said not in _PULL_POLICIES[:-1] and not _EVERY.fullmatch(said):
        raise node.error(f"{said!r} is no policy", f"there is {', '.join(_PULL_POLICIES)}")
    return said


def stop_signal(node: Node) -> str:
    """Return a signal by its name."""
    said = text(node).upper()
    if said.isdigit():
        try:
            return signal.Signals(int(said)).name
        except ValueError:
            raise node.error(f"there is no signal {said}") from None
    name = said if said.startswith("SIG") else f"SIG{said}"
    known = [known.name for known in signal.Signals]
    if name not in known and not re.fullmatch(r"SIGRT(MIN\+|MAX-)[0-9]{1,2}", name):
        raise node.error(f"there is no signal {said}", did_you_mean(name, known))
    return name


def capability(node: Node) -> str:
    """Return a capability by its name without CAP_, or ALL."""
    # It loads the C library, which the declarations do without on systems that are no Linux.
    from pytest_sandbox_runtime.kernel.capabilities import Capability

    name = text(node).upper().removeprefix("CAP_")
    known = [*(known for known in vars(Capability) if known.isupper()), "ALL"]
    if name not in known:
        raise node.error(f"there is no capability {name}", did_you_mean(name, known))
    return name
