"""pytest-xdist: one supervisor, the controller's, for all workers. PYTEST_DONT_REWRITE.

The controller listens on an abstract socket, unix(7), which leaves nothing on disk, and starts its engine when the
first worker asks: a suite that uses no sandbox starts none.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox.fixtures import BROKER, STARTS, engine_of
from pytest_sandbox.settings import SETTINGS

if TYPE_CHECKING:
    from pytest_sandbox_runtime.errors import SandboxError

_INPUT = "sandbox_broker"
_OUTPUT = "sandbox_starts"


class Broker:
    """The controller's side: tells workers where the supervisor is."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._name = f"pytest-sandbox-{os.urandom(16).hex()}"
        self._listener: socket.socket | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker about to start where to ask."""
        if self._listener is None:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._listener.bind(f"\0{self._name}")
            self._listener.listen()
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()
        node.workerinput[_INPUT] = self._name

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                worker, _ = listener.accept()
            except OSError:
                return
            with worker:
                if _uid_of(worker) == os.geteuid():
                    worker.send(self._address())

    def _address(self) -> bytes:
        from pytest_sandbox_runtime.errors import SandboxError

        try:
            return b"=" + os.fsencode(engine_of(self._config).listen())
        except SandboxError as error:
            return b"!" + _shipped(error)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take in which sandboxes a worker has started."""
        told = getattr(node, "workeroutput", {}).get(_OUTPUT, ())
        self._config.stash.setdefault(STARTS, []).extend(map(tuple, told))

    def pytest_unconfigure(self) -> None:
        """Listen no longer."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()


class _Worker:
    """A worker's side: tells the controller what it has started."""

    def __init__(self, config: Any) -> None:
        self._config = config

    def pytest_sessionfinish(self) -> None:
        """Leave it with what xdist takes home."""
        self._config.workeroutput[_OUTPUT] = list(self._config.stash.get(STARTS, ()))


def _uid_of(peer: socket.socket) -> int:
    return int(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def _shipped(error: SandboxError) -> bytes:
    import pickle

    return pickle.dumps(error)


def ask(broker: str) -> str:
    """Return the address of the controller's supervisor; raises the SandboxError that the controller met."""
    import pickle

    from pytest_sandbox_runtime.errors import EngineError

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        try:
            channel.connect(f"\0{broker}")
            answer = channel.recv(65536)
        except OSError as error:
            raise EngineError(f"the controller of this run does not answer: {error.strerror}") from error
    if answer.startswith(b"!"):
        raise pickle.loads(answer[1:])
    if not answer:
        raise EngineError("the controller of this run ended before it answered")
    return os.fsdecode(answer[1:])


def configure(config: pytest.Config) -> None:
    """Take the part that this process has in a distributed run; raises UsageError where it cannot be one."""
    if config.stash[SETTINGS].shell:
        raise pytest.UsageError("--sandbox-shell needs the terminal, which distributed tests have not; leave out -n")
    worker_input = getattr(config, "workerinput", None)
    if worker_input is not None:
        if _INPUT in worker_input:
            config.stash[BROKER] = worker_input[_INPUT]
            config.pluginmanager.register(_Worker(config), "sandbox-worker")
    else:
        config.pluginmanager.register(Broker(config), "sandbox-broker")
