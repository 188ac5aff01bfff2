"""PYTEST_DONT_REWRITE. The watch of a run: a fork of the supervisor that sees to it that nothing is refused unheard.

It answers the look-ups of sandboxes, hears of the connections that they begin, and writes down, a line each, which of
them could not be had. Of the run's networks it is told on one socket, in the order in which things happen.
"""

from __future__ import annotations

import os
import sys

from pytest_sandbox_runtime.kernel.light import signal, socket
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.kernel.processes import become_helper
from pytest_sandbox_runtime.supervisor.messages import receive, send, seqpacket_pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from pytest_sandbox_runtime.network.bridge import Plan

# In the run's directory: sandbox, name or address, port (0 for a look-up) and program, with tabs between them.
LOG_NAME = "refused"
# Where every sandbox is answered, as with Docker, and those that are on no network have nobody else.
RESOLVER = "127.0.0.11"
_DNS_PORT = 53


class Watch:
    """The supervisor's end. On ``channel`` whoever starts in a sandbox says how it is heard: see ``tell_of``."""

    def __init__(self, run: str) -> None:
        self.channel, theirs = seqpacket_pair()
        log = os.open(f"{run}/{LOG_NAME}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.pid = os.fork()
        if self.pid == 0:
            _run(theirs, log)
        theirs.close()
        os.close(log)

    def add(self, network: int, plan: Plan, sockets: tuple[int, ...]) -> None:
        """Answer at ``sockets``, one of UDP and one of TCP, of a new network."""
        send(self.channel, ("add", network, tuple(plan)), sockets)

    def remove(self, network: int) -> None:
        """Forget a network."""
        send(self.channel, ("remove", network))

    def name(self, network: int, who: str, names: tuple[str, ...], addresses: tuple[bytes, ...]) -> None:
        """Let ``names`` be those of ``who`` on ``network``, a sandbox or whatever can be reached over it."""
        send(self.channel, ("name", network, who, names, addresses))

    def forget(self, network: int, who: str) -> None:
        """Let ``who`` have no names on ``network`` any more."""
        send(self.channel, ("forget", network, who))

    def open(self, network: int, who: str, port: int) -> None:
        """Take note that ``port`` of ``who``, who is no sandbox, leads somewhere."""
        send(self.channel, ("open", network, who, port))

    def end(self) -> None:
        """End it. Where it has died: nothing."""
        try:  # noqa: SIM105  contextlib is not needed here otherwise
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # and its number nobody else's: this process is the one that starts others


def tell_of(channel: socket.socket, sandbox: str, listener: int, *resolver: int) -> None:
    """Let what this process of ``sandbox`` does be heard at ``listener``, if that is not -1.

    As long as it lives, what is asked at ``resolver`` is answered. Both are closed here.
    """
    is_heard = listener != -1
    fds = (listener if is_heard else os.pidfd_open(os.getpid()), *resolver)
    send(channel, ("hear", sandbox, os.stat("/proc/self/ns/net").st_ino) if is_heard else ("answer", sandbox), fds)
    for fd in fds:
        os.close(fd)


def open_resolver() -> tuple[int, ...]:
    """Return the socket at which sandboxes in a network namespace are answered, when called in that."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    one.bind((RESOLVER, _DNS_PORT))
    return (one.detach(),)


class _Process:
    def __init__(self, control: socket.socket, log: int) -> None:
        # Only here: most of it the supervisor, and so every init, has no use for.
        from pytest_sandbox_runtime.network.hearing import Hearing
        from pytest_sandbox_runtime.network.loop import Loop
        from pytest_sandbox_runtime.network.resolver import Resolver
        from pytest_sandbox_runtime.network.topology import Topology

        self._control = control
        self._log = log
        self.loop = Loop()
        self._topology = Topology()
        self._hearing = Hearing(self.loop, self._topology, self._write)
        self._resolver = Resolver(self.loop, self._topology, self._refuse_name)
        self._words: dict[str, Callable[..., None]] = {
            "add": self._add,
            "remove": self._remove,
            "name": self._topology.name,
            "forget": self._topology.forget,
            "open": self._topology.open,
            "hear": self._hear,
            "answer": self._answer,
        }
        self.loop.watch(control.fileno(), self._obey)

    def _obey(self, _: bool) -> None:  # noqa: FBT001
        received = receive(self._control)
        if received is None:
            os._exit(0)
        (word, *operands), fds = received
        self._words[str(word)](*operands, *fds)

    def _add(self, network: int, plan: tuple[Any, ...], udp: int, tcp: int) -> None:
        self._topology.add(network, plan)
        self._resolver.open(network, udp, tcp)

    def _remove(self, network: int) -> None:
        self._resolver.close(network)
        self._topology.remove(network)

    def _hear(self, sandbox: str, namespace: int, listener: int, *resolver: int) -> None:
        self._resolver.open_for(sandbox, *resolver)
        self._hearing.hear(sandbox, namespace, listener, lambda: self._resolver.close_for(*resolver))

    def _answer(self, sandbox: str, life: int, *resolver: int) -> None:
        self._resolver.open_for(sandbox, *resolver)

        def end(_: bool) -> None:  # noqa: FBT001
            self.loop.unwatch(life)
            os.close(life)
            self._resolver.close_for(*resolver)

        self.loop.watch(life, end)

    def _refuse_name(self, sandbox: str, name: str) -> None:
        self._write(sandbox, name, 0, self._hearing.asker(sandbox))

    def _write(self, sandbox: str, name: str, port: int, program: str) -> None:
        os.write(self._log, f"{sandbox}\t{name}\t{port}\t{program}\n".encode())


def _run(channel: socket.socket, log: int) -> NoReturn:
    try:
        become_helper(channel.fileno(), log)
        # Whoever is heard is known by its number in the run.
        unshare(CloneFlag.NEWNS)
        mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)
        flags = MountFlag.RDONLY | MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
        try:  # noqa: SIM105  contextlib is not needed here otherwise
            mount("proc", "/proc", "proc", flags)
        except OSError:
            pass  # then no sandbox can have one either, and each says why
        _Process(channel, log).loop.serve()
    except BaseException:
        # Goes to the run's supervisor.log.
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(1)
