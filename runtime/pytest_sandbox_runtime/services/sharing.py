"""PYTEST_DONT_REWRITE. Services that a whole run shares: made by the client that asks first, held by the supervisor.

What one client has made reaches the others as values and descriptors: of its network, its sandboxes and its programs.
"""

from __future__ import annotations

import os
import pickle
import socket
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.cgroups import OomWatch
from pytest_sandbox_runtime.control import Control
from pytest_sandbox_runtime.errors import UnsupportedError
from pytest_sandbox_runtime.forwarding import forwarder
from pytest_sandbox_runtime.listening import Listeners
from pytest_sandbox_runtime.live_network import Join, LiveNetwork
from pytest_sandbox_runtime.process import Process
from pytest_sandbox_runtime.reachable import Started
from pytest_sandbox_runtime.sandbox import Sandbox
from pytest_sandbox_runtime.services.live_service import LiveService, Parts
from pytest_sandbox_runtime.services.seeding import identity
from pytest_sandbox_runtime.services.starting import start_with_dependencies
from pytest_sandbox_runtime.specs.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_sandbox_runtime.connection import Connection
    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.specs.service import Service

    Made = tuple[bytes, list[str], list[int], tuple[int, ...]]

_NETWORK_KEY = "network"
# Beside those that clients give their own networks.
_SUBNET = "10.78.0.0/16"


def shared_network(engine: Engine, connection: Connection) -> LiveNetwork:
    """Return the network of all that the run shares."""

    def make() -> Made:
        network = engine.network(Network(name="shared", subnet=_SUBNET))
        number, network.number = network.number, None
        assert number is not None  # it was just made
        return pickle.dumps((network.spec, number)), [], [number], ()

    told, _ = _ask(connection, _NETWORK_KEY, make)
    spec, number = pickle.loads(told)
    return LiveNetwork.shared(spec, number, connection, _NETWORK_KEY)


def shared_service(engine: Engine, connection: Connection, service: Service, network: LiveNetwork) -> LiveService:
    """Return ``service``, which is on ``network``, when it is ready: made now, or by another client before."""
    key = f"service-{identity(service)}"

    def make() -> Made:
        live = start_with_dependencies(engine, service, network)
        parts = [one.parts for one in (live, *live.dependencies)]
        told = pickle.dumps([_told(one) for one in parts])
        fds = tuple(os.dup(fd) for one in parts for fd in (*one.sandbox.descriptors, one.process.fileno()))
        live.let_go()
        return told, [one.sandbox.name for one in parts], [], fds

    told, fds = _ask(connection, key, make)
    with ExitStack() as undo:
        undo.callback(lambda: connection.tell(("release", key)))
        live, *others = _adopt_all(connection, pickle.loads(told), fds, network, undo)
        live.depend_on(others)
        return live


def _ask(connection: Connection, key: str, make: Callable[[], Made]) -> tuple[bytes, list[int]]:
    (word, *told), fds = connection.ask(("share", key))
    if word == "make":
        try:
            made, sandboxes, networks, ours = make()
        except BaseException:
            connection.tell(("give up", key))
            raise
        connection.ask(("publish", key, made, sandboxes, networks), ours)
        for fd in ours:
            os.close(fd)
        (_, *told), fds = connection.ask(("share", key))
    return told[0], fds


def _told(parts: Parts) -> dict[str, Any]:
    service = replace(parts.service, seeds=(), depends_on=())
    return {
        "service": service,
        "sandbox": parts.sandbox.told(),
        "args": parts.process.args,
        "pid": parts.process.pid,
        "config": parts.config,
        "log": parts.log,
    }


def _adopt_all(
    connection: Connection, told: list[dict[str, Any]], fds: list[int], network: LiveNetwork, undo: ExitStack
) -> Iterable[LiveService]:
    for index, one in enumerate(told):
        control, pidfd, root, reply = fds[index * 4 : index * 4 + 4]
        with ExitStack() as mine:
            sandbox = mine.enter_context(adopt(connection, one["sandbox"], (control, pidfd, root), network))
            channel = mine.enter_context(socket.socket(fileno=reply))
            process = Process(
                one["args"], one["pid"], channel, (None,) * 3, sandbox.signal_process, sandbox.oom, is_shared=True
            )
            if index == 0:
                mine.push(undo.pop_all())
            yield LiveService(Parts(one["service"], sandbox, network, process, one["config"], one["log"]), mine)


def adopt(
    connection: Connection, told: dict[str, Any], descriptors: tuple[int, int, int], network: LiveNetwork
) -> Sandbox:
    """Return a handle of a sandbox that another client has made, for what its Sandbox.told and .descriptors say.

    It ends when the supervisor says so, and not with this handle.
    """
    spec = told["spec"]
    oom = OomWatch(told["cgroup_paths"] if spec.memory is not None else None)
    with ExitStack() as undo:
        theirs, pidfd, root = descriptors
        channel = undo.enter_context(socket.socket(fileno=theirs))
        undo.callback(os.close, pidfd)
        undo.callback(os.close, root)
        control = Control(told["name"], channel, oom, connection.last_words)
        listeners = Listeners(control)
        undo.callback(listeners.close)
        started = Started(
            name=told["name"],
            control=control,
            pidfd=pidfd,
            root=root,
            seen=connection.seen,
            directory=told["directory"],
            tree=told["tree"],
            uid=told["uid"],
            cgroup_paths=told["cgroup_paths"],
            oom=oom,
            keep=_cannot,
            commit=_cannot,
            again=_cannot,
            namespaces=told["namespaces"],
            forward=forwarder(connection, told["name"]),
            connection=connection,
            listeners=listeners,
            joins=tuple((Join(network), addresses) for addresses in told["addresses"]),
        )
        return Sandbox(spec, started, undo)


def _cannot(_: object) -> Any:
    raise UnsupportedError(
        "a sandbox that the whole run shares cannot be kept, committed or forked by one of its users"
    )
