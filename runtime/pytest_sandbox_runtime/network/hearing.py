"""PYTEST_DONT_REWRITE. The connections that sandboxes begin: each connect(2) waits until it was looked at here.

It then goes on in any case, as to refuse is the network's business: here it is only seen who is about to be refused.
"""

from __future__ import annotations

import errno
import os
import struct
from ctypes import c_int, c_uint

from pytest_sandbox_runtime.kernel.libc import bind_syscall, check
from pytest_sandbox_runtime.kernel.light import socket
from pytest_sandbox_runtime.kernel.seccomp import let_go_on, next_notification
from pytest_sandbox_runtime.network.bridge import DNS_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.kernel.seccomp import Notification
    from pytest_sandbox_runtime.network.loop import Loop
    from pytest_sandbox_runtime.network.topology import Topology

# sockaddr_in and sockaddr_in6: the larger of them.
_LONGEST = 28
_MAPPED = b"\0" * 10 + b"\xff\xff"
_LONGEST_TOLD = 200
_pidfd_getfd = bind_syscall(438, c_int, c_int, c_uint)


class Hearing:
    """Tells ``refuse`` the sandbox, the name or address, the port and the program of what is about to be refused."""

    def __init__(self, loop: Loop, topology: Topology, refuse: Callable[[str, str, int, str], None]) -> None:
        self._loop = loop
        self._topology = topology
        self._refuse = refuse
        # Who has turned to a resolver last, in each sandbox.
        self._askers: dict[str, int] = {}

    def hear(self, sandbox: str, namespace: int, listener: int, end: Callable[[], None]) -> None:
        """Look at what is heard at ``listener``, and call ``end`` when there is nobody any more that could be.

        ``namespace`` is the inode of the sandbox's network namespace; in others, as of a sandbox in it, nobody is
        refused by a network of this run.
        """

        def act(is_readable: bool) -> None:  # noqa: FBT001
            if is_readable:
                self._look(sandbox, namespace, listener)
                return
            self._loop.unwatch(listener)
            os.close(listener)
            self._askers.pop(sandbox, None)
            end()

        self._loop.watch(listener, act)

    def asker(self, sandbox: str) -> str:
        """Return the program that has last asked for a name."""
        return program_of(self._askers.get(sandbox, 0))

    def _look(self, sandbox: str, namespace: int, listener: int) -> None:
        call = next_notification(listener)
        try:
            place = _place(call)
            if place is not None and _is_in(namespace, call.pid):
                self._judge(sandbox, call, *place)
        finally:
            let_go_on(listener, call)

    def _judge(self, sandbox: str, call: Notification, address: bytes, port: int) -> None:
        if port == DNS_PORT:
            self._askers[sandbox] = call.pid
        name = self._topology.refused(sandbox, address, port)
        # To connect a datagram socket sends nothing: so programs find out which address they have themselves.
        if name is not None and (port == DNS_PORT or not _is_datagram(call)):
            self._refuse(sandbox, name, port, program_of(call.pid))


def _place(call: Notification) -> tuple[bytes, int] | None:
    """Return the address and the port that a connect(2) names, None where that is no place on a network."""
    _, where, length = call.arguments[:3]
    try:
        memory = os.open(f"/proc/{call.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            given = os.pread(memory, min(length, _LONGEST), where)
        finally:
            os.close(memory)
        family, port = struct.unpack_from("=H", given)[0], struct.unpack_from("!H", given, 2)[0]
        if family == socket.AF_INET:
            return struct.unpack_from("4s", given, 4)[0], port
        if family == socket.AF_INET6:
            address = struct.unpack_from("16s", given, 8)[0]
            return address[12:] if address.startswith(_MAPPED) else address, port
    except (OSError, OverflowError, struct.error):
        # It has died, has named no address, or is hidden from us.
        return None
    return None


def _is_in(namespace: int, pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino == namespace
    except OSError:
        return True


def _is_datagram(call: Notification) -> bool:
    try:
        with open(f"/proc/{call.pid}/status", "rb") as status:
            (leader,) = (int(line[5:]) for line in status if line.startswith(b"Tgid:"))
        process = os.pidfd_open(leader)
        try:
            theirs = check(_pidfd_getfd(process, call.arguments[0] & 0xFFFFFFFF, 0), "pidfd_getfd")
        finally:
            os.close(process)
    except (OSError, ValueError):
        return False
    one = socket.socket(fileno=theirs)
    kind = one.type
    one.close()
    return kind != socket.SOCK_STREAM


def program_of(pid: int) -> str:
    """Return the command line of a process, of a thread's own; "" where that cannot be had."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(_LONGEST_TOLD * 4)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM):
            raise
        return ""
    return " ".join(words.decode(errors="replace").replace("\0", " ").split())[:_LONGEST_TOLD]
