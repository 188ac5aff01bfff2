"""PYTEST_DONT_REWRITE. What clients ask of networks, and of sandboxes on them: each request has one answer."""

from __future__ import annotations

import errno
import os

from pytest_sandbox_runtime.kernel.light import signal
from pytest_sandbox_runtime.network.bridge import Plan
from pytest_sandbox_runtime.network.ports import forward, listen
from pytest_sandbox_runtime.supervisor.captures import Captures
from pytest_sandbox_runtime.supervisor.messages import refuse, send
from pytest_sandbox_runtime.supervisor.networks import Networks
from pytest_sandbox_runtime.supervisor.shares import Shares

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pytest_sandbox_runtime.network.namespaces import Namespaces
    from pytest_sandbox_runtime.network.watch import Watch
    from pytest_sandbox_runtime.supervisor.clients import Client, Sandbox

    # A network's number, the names by which to be found on it, and the host's number or None.
    Join = tuple[int, tuple[str, ...], int | None]


class NetworkRequests:
    """Those of all clients, about the run's ``networks``, what it ``shares``, and its ``sandboxes`` by their names.

    A sandbox that nobody wants any more goes to ``discard``.
    """

    def __init__(
        self,
        sandboxes: dict[str, Sandbox],
        namespaces: Namespaces,
        watch: Watch,
        discard: Callable[[Sandbox], None],
    ) -> None:
        self._sandboxes = sandboxes
        self._networks = self.networks = Networks(namespaces, watch)
        self.shares = Shares(discard, self.networks.close)
        self._captures = Captures(sandboxes, self.networks)
        self._forwarders: dict[int, Sandbox] = {}
        self.requests: dict[str, Callable[..., None]] = {
            "network": self._open,
            "close network": self._close,
            "join": self._join,
            "outlet": self._open_outlet,
            "forward": self._forward,
            "capture": self._capture,
            "share": self.shares.ask,
            "publish": self.shares.publish,
            "give up": self.shares.give_up,
            "release": self.shares.release,
        }

    def reaped(self, pid: int) -> None:
        """Forget a process that has ended."""
        self._forwarders.pop(pid, None)
        self._networks.reaped(pid)

    def end_forwarding(self, sandbox: Sandbox) -> None:
        """Let nothing lead to a sandbox that is dead."""
        for forwarder in [pid for pid, of in self._forwarders.items() if of is sandbox]:
            os.kill(forwarder, signal.SIGKILL)

    def lose(self, client: Client) -> None:
        """End what a client that has gone has made, and let go of what it shared."""
        for number in client.networks:
            self.networks.close(number)
        self.shares.lose(client)

    def _open(self, client: Client, plan: tuple[Any, ...]) -> None:
        try:
            number = self._networks.open(Plan(*plan))
        except OSError as error:
            refuse(client.channel, "make the network", error)
            return
        client.networks.add(number)
        send(client.channel, ("network", number))

    def _close(self, client: Client, number: int) -> None:
        if number in client.networks:
            client.networks.discard(number)
            self._networks.close(number)

    def _join(self, client: Client, name: str, join: Join) -> None:
        try:
            member = self._living(name).member
            if member is None:
                refuse(client.channel, "join the network", OSError(errno.ENODEV, "", ""))
                return
            addresses = self._networks.join(member, *join)
        except OSError as error:
            refuse(client.channel, "join the network", error)
            return
        send(client.channel, ("joined", addresses))

    def _open_outlet(self, client: Client, *outlet: Any) -> None:
        try:
            send(client.channel, ("outlet", self._networks.open_outlet(*outlet)))
        except OSError as error:
            refuse(client.channel, "open the way out", error)

    def _forward(self, client: Client, name: str, target: tuple[Any, ...], host: str, port: int) -> None:
        try:
            sandbox = self._living(name)
            listener = listen(target[0], host, port)
            try:
                self._forwarders[forward(listener, target, sandbox.pid)] = sandbox
                send(client.channel, ("forwarded", *listener.getsockname()[:2]))
            finally:
                listener.close()
        except OSError as error:
            refuse(client.channel, "forward the port", error)

    def _capture(self, client: Client, where: str | int, how: tuple[int, int], file: int, control: int) -> None:
        try:
            self._captures.begin(where, how, file, control)
            send(client.channel, ("capturing",))
        except OSError as error:
            refuse(client.channel, "capture packets", error)
        finally:
            os.close(file)
            os.close(control)

    def _living(self, name: str) -> Sandbox:
        sandbox = self._sandboxes.get(name)
        if sandbox is None or sandbox.status is not None:
            raise OSError(errno.ESRCH, "", "")
        return sandbox
