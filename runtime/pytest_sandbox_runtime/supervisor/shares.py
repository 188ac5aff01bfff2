"""PYTEST_DONT_REWRITE. What all clients of a run share: made by the first that asks, gone with the last.

Who asks for something that nobody has made yet is told to make it, and those who ask meanwhile wait for that.
"""

from __future__ import annotations

import os

from pytest_sandbox_runtime.supervisor.messages import send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.supervisor.clients import Client, Sandbox


class Share:
    """One thing that is shared: what is told of it, the descriptors that go with that, and what is behind it."""

    def __init__(self, maker: Client) -> None:
        self.maker: Client | None = maker
        self.waiting: list[Client] = []
        self.users: list[Client] = []
        self.told = b""
        self.fds: tuple[int, ...] = ()
        self.sandboxes: list[Sandbox] = []
        self.networks: list[int] = []


class Shares:
    """All of a run, by their keys; what is behind one that nobody uses any more goes to ``discard`` and ``close``."""

    def __init__(self, discard: Callable[[Sandbox], None], close: Callable[[int], None]) -> None:
        self._shares: dict[str, Share] = {}
        self._discard = discard
        self._close = close

    def ask(self, client: Client, key: str) -> None:
        """Answer with what is shared, or ask to make it; nothing yet where somebody is about to."""
        share = self._shares.get(key)
        if share is None:
            self._shares[key] = Share(client)
            send(client.channel, ("make",))
        elif share.maker is not None:
            share.waiting.append(client)
        else:
            self._give(client, share)

    def _give(self, client: Client, share: Share) -> None:
        share.users.append(client)
        send(client.channel, ("shared", share.told), share.fds)

    def publish(
        self, client: Client, key: str, told: bytes, sandboxes: list[str], networks: list[int], *fds: int
    ) -> None:
        """Take over what ``client`` has made, and give it to those who wait."""
        share = self._shares[key]
        share.maker, share.told, share.fds = None, told, fds
        share.sandboxes = [client.sandboxes.pop(name) for name in sandboxes]
        share.networks = list(networks)
        client.networks.difference_update(networks)
        send(client.channel, ("published",))
        waiting, share.waiting = share.waiting, []
        for one in waiting:
            self._give(one, share)

    def give_up(self, _: Client, key: str) -> None:
        """Let the next who waits make what could not be made."""
        share = self._shares.pop(key)
        if share.waiting:
            following = self._shares[key] = Share(share.waiting.pop(0))
            following.waiting = share.waiting
            try:
                send(following.maker.channel, ("make",))  # type: ignore[union-attr]
            except OSError:
                # Gone, too: its own loss comes next.
                return

    def release(self, client: Client, key: str) -> None:
        """Let ``client`` use it no longer."""
        share = self._shares.get(key)
        if share is not None and client in share.users:
            share.users.remove(client)
            self._end_unused(key, share)

    def lose(self, client: Client) -> None:
        """Forget a client that has gone."""
        for key, share in list(self._shares.items()):
            share.waiting = [one for one in share.waiting if one is not client]
            share.users = [one for one in share.users if one is not client]
            if share.maker is client:
                self.give_up(client, key)
            else:
                self._end_unused(key, share)

    def _end_unused(self, key: str, share: Share) -> None:
        if share.maker is not None or share.users or share.waiting:
            return
        del self._shares[key]
        for fd in share.fds:
            os.close(fd)
        for sandbox in share.sandboxes:
            self._discard(sandbox)
        for number in share.networks:
            self._close(number)
