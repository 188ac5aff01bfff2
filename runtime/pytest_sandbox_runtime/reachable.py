"""PYTEST_DONT_REWRITE. A sandbox as a host on networks: how it is reached, and what crosses its devices.

What few tests use is imported when it is used.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import SandboxClosedError, SpecError
from pytest_sandbox_runtime.files import Files
from pytest_sandbox_runtime.handle import Handle
from pytest_sandbox_runtime.specs.sandbox import DEFAULT_HOSTNAME

if TYPE_CHECKING:
    import os
    import socket
    from collections.abc import Callable

    from pytest_sandbox_runtime.authority import Authority
    from pytest_sandbox_runtime.capturing import Capture
    from pytest_sandbox_runtime.cgroups import OomWatch
    from pytest_sandbox_runtime.connection import Connection
    from pytest_sandbox_runtime.control import Control
    from pytest_sandbox_runtime.listening import Listeners
    from pytest_sandbox_runtime.live_network import Join
    from pytest_sandbox_runtime.rootfs.plan import Tree
    from pytest_sandbox_runtime.sandbox import Sandbox
    from pytest_sandbox_runtime.specs import Image, SandboxSpec


@dataclass(frozen=True, kw_only=True)
class Started:
    """What the engine has made of a spec: the parts that a handle is put together from."""

    name: str
    control: Control
    pidfd: int
    root: int
    directory: str
    tree: Tree
    uid: int
    cgroup_paths: Any
    oom: OomWatch
    namespaces: int
    forward: Callable[..., tuple[str, int]]
    connection: Connection
    listeners: Listeners
    joins: tuple[tuple[Join, tuple[str, ...]], ...]
    seen: Callable[[str], str]
    keep: Callable[[str], str]
    commit: Callable[[str], Image]
    again: Callable[[Image], Sandbox]


class Reachable(Handle):
    """What a Sandbox is to others, besides what is done in it."""

    def __init__(self, spec: SandboxSpec, started: Started) -> None:
        self.spec = spec
        self.name = started.name
        # The networks that it is on, each with its addresses there.
        self.joins = list(started.joins)
        self._started = started
        self._files = Files(started.root)
        self._own_env: dict[str, str] = {}
        self._captures: list[Capture] = []

    def _check_open(self) -> None:
        if self._undo is None:
            raise SandboxClosedError(
                f"sandbox {self.name} was closed", hint="use it within its with block, or its test"
            )

    @property
    def pidfd(self) -> int:
        """A descriptor of the sandbox's init: pidfd_open(2)."""
        self._check_open()
        return self._started.pidfd

    @property
    def files(self) -> Files:
        """The sandbox's files, seen from outside: also ``exists``, ``is_dir``, ``listdir``, ``mkdir``, ``unlink``."""
        self._check_open()
        return self._files

    @property
    def ip(self) -> str:
        """The address of IPv4 on the first network that the sandbox is on; SpecError where it is on none."""
        return self.addresses[0]

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses on networks, of IPv4 and IPv6, in the order in which those were joined."""
        if not self.own_addresses:
            raise SpecError(f"sandbox {self.name} is on no network", hint="start it with network=")
        return self.own_addresses

    @property
    def own_addresses(self) -> tuple[str, ...]:
        return tuple(address for _, some in self.joins for address in some)

    @property
    def own_hostname(self) -> str | None:
        return None if self.spec.hostname == DEFAULT_HOSTNAME else self.spec.hostname

    def trust(self, authority: Authority) -> None:
        """Have what is started here from now on trust ``authority``: see LiveNetwork.expose."""
        from pytest_sandbox_runtime.authority import TRUST, bundle_of

        authority.make_trusted(self.files)
        # Some libraries look into a file of their own, unless these say otherwise.
        self._own_env = dict.fromkeys(TRUST, bundle_of(self.files))

    def connect(self, port: int, host: str = "127.0.0.1", *, timeout: float = 5) -> socket.socket:
        """Return a TCP socket connected to ``port`` as if from inside the sandbox.

        Raises ConnectionRefusedError when nobody listens there, TimeoutError after ``timeout`` seconds.
        """
        from pytest_sandbox_runtime.connecting import connect

        self._check_open()
        return connect(self._started.control, host, port, self.name, timeout)

    @property
    def listeners(self) -> Listeners:
        """Who listens in the sandbox."""
        self._check_open()
        return self._started.listeners

    def address(
        self, port: int | None = None, *, path: str | None = None, protocol: str = "tcp", timeout: float = 5
    ) -> tuple[str, int]:
        """Return host and port on this machine's loopback device that lead to ``port``, or to the Unix socket ``path``.

        It is waited for ``timeout`` seconds that somebody listens there, by "tcp" or "udp": ConnectionRefusedError
        where nobody does. It leads there as long as the sandbox lives, the same each time.
        """
        from pytest_sandbox_runtime.forwarding import address

        return address(self, self._started.forward, port, path, protocol, timeout)

    def url(self, port: int, path: str = "/", *, scheme: str = "http", timeout: float = 5) -> str:
        """Return a URL on this machine that leads to ``port``: see ``address``."""
        host, number = self.address(port, timeout=timeout)
        return f"{scheme}://{host}:{number}/{path.lstrip('/')}"

    def capture(
        self, path: str | os.PathLike[str] | None = None, *, snaplen: int | None = None, buffer: int | None = None
    ) -> Capture:
        """Write what crosses the sandbox's network devices, loopback among them, to a pcap file from now on.

        Without ``path`` it lies in the run's directory, and goes with the run; ``snaplen`` is how many bytes of each
        packet are written, all where left out, and ``buffer`` how many bytes may wait for that, 32 MiB where left out.
        It ends with the sandbox, or by Capture.stop. Raises SpecError for a sandbox on the host's network, and
        FileAccessError where the file cannot be written.
        """
        from pytest_sandbox_runtime.capturing import begin

        self._check_open()
        if self.spec.network == "host":
            msg = f"sandbox {self.name} is on the host's network, whose packets are not its own"
            raise SpecError(msg, hint="leave out network='host', or capture on the host with tcpdump")
        self._captures.append(capture := begin(self._started.connection, self.name, path, snaplen, buffer))
        with ExitStack() as undo:
            undo.callback(capture.stop)
            self.own(undo.pop_all())
        return capture
