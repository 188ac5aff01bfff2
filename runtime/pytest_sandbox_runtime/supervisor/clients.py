"""PYTEST_DONT_REWRITE. What the supervisor knows of its sandboxes, and of who asked for them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_sandbox_runtime.kernel.light import socket
    from pytest_sandbox_runtime.network.namespaces import Namespace
    from pytest_sandbox_runtime.supervisor.directories import Directories, Directory
    from pytest_sandbox_runtime.supervisor.networks import Member


class Sandbox:
    """An init that runs, and what must go when it has gone."""

    def __init__(
        self,
        name: str,
        pid: int,
        control: socket.socket,
        group: Any,
        place: Directories,
        directory: Directory,
        namespace: Namespace | None,
        member: Member | None,
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.member = member
        self.place = place
        self.directory = directory
        self.pid = pid
        self.control = control
        self.group = group
        self.status: int | None = None
        self.unwanted = False
        self.keep = False
        # More than leave its network namespace as it was.
        self.has_more_rights = False


class Client:
    """Who asks: a socket, the process behind it, and the sandboxes that die with it.

    ``standby`` are made, while nobody waits, of the job that was asked for twice in a row, and handed out to who asks
    for it next: a sandbox is handed out once, ever.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.pidfd = -1
        self.sandboxes: dict[str, Sandbox] = {}
        self.networks: set[int] = set()
        self.last_job = b""
        self.repeated = b""
        self.standby: list[Sandbox] = []
