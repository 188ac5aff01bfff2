"""PYTEST_DONT_REWRITE. The networks of one client: which there are, and how its sandboxes join them."""

from __future__ import annotations

import contextlib
import functools
import weakref
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.authority import Authority
from pytest_sandbox_runtime.errors import SpecError, StartError
from pytest_sandbox_runtime.live_network import LiveNetwork, check, refusal, request
from pytest_sandbox_runtime.specs.network import Network
from pytest_sandbox_runtime.specs.sandbox import DEFAULT_HOSTNAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_sandbox_runtime.connection import Connection
    from pytest_sandbox_runtime.live_network import Join
    from pytest_sandbox_runtime.sandbox import Sandbox
    from pytest_sandbox_runtime.specs import SandboxSpec

    Requests = tuple[tuple[int, tuple[str, ...], int | None], ...]


class Networking:
    """The networks made over ``connection``, and those of the ``sandboxes`` that are alive which are on them."""

    def __init__(self, connection: Connection, sandboxes: Mapping[str, Sandbox]) -> None:
        self._connection = connection
        self._sandboxes = sandboxes
        self._networks: weakref.WeakSet[LiveNetwork] = weakref.WeakSet()

    def open(self, spec: Network | None) -> LiveNetwork:
        """Make a network; raises SpecError where its addresses are another's."""
        others = [network for network in self._networks if network.number is not None]
        network = self._open(spec or Network(), others)
        self._networks.add(network)
        return network

    def open_for_one(self, spec: Network, joins: tuple[Join, ...]) -> LiveNetwork:
        """Make a network that only one sandbox will be on, beside ``joins``: nobody else can mind its addresses."""
        return self._open(spec, [join.network for join in joins])

    def _open(self, spec: Network, others: Iterable[LiveNetwork]) -> LiveNetwork:
        return LiveNetwork(spec, self._connection, others, self._authority, self._make_trusted)

    @functools.cached_property
    def _authority(self) -> Authority:
        return Authority(self._connection.run)

    def _make_trusted(self, network: LiveNetwork) -> None:
        for sandbox in self._sandboxes.values():
            if network in [join.network for join, _ in sandbox.joins]:
                sandbox.trust(self._authority)

    def greet(self, sandbox: Sandbox) -> None:
        """Have ``sandbox``, which has just joined its networks, trust what those on them do."""
        if any(join.network.trusts_authority for join, _ in sandbox.joins):
            sandbox.trust(self._authority)

    def nameservers(self, spec: SandboxSpec, joins: tuple[Join, ...]) -> tuple[str, ...]:
        """Return who answers DNS on the networks of ``joins``; raises SpecError where ``spec`` cannot be on them."""
        if spec.network == "host":
            raise SpecError("a sandbox with network='host' has no network of its own to join others with")
        check(joins)
        return (joins[0].network.gateway,)

    def requests(self, spec: SandboxSpec, joins: tuple[Join, ...]) -> Requests:
        """Return ``joins`` as the supervisor is told them."""
        hostname = None if spec.hostname == DEFAULT_HOSTNAME else spec.hostname
        return tuple(request(join, hostname) for join in joins)

    @contextlib.contextmanager
    def explained(self, joins: tuple[Join, ...]) -> Iterator[None]:
        """Say what the supervisor's refusal of ``joins`` means."""
        try:
            yield
        except StartError as error:
            raise refusal(error.code, joins) or error from None
