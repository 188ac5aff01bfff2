"""PYTEST_DONT_REWRITE. One message a packet, over SOCK_SEQPACKET sockets, with descriptors passed along.

A message is a tuple of None, numbers, bytes, str, tuples, lists and dicts, its first member a word: marshal carries
those in a microsecond and is built in. Both ends are ours: a command cannot write to these sockets.

    client to supervisor   create, close, remove, engine requests; each has one answer
    client to init         exec, signal, connect, winsize; exec and connect bring a socket for their own answers
"""

from __future__ import annotations

import marshal
import os
import struct

from pytest_sandbox_runtime.kernel.light import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A packet must fit in the socket's buffer (net.core.wmem_default, 208 KiB); what is larger goes by memfd_create(2).
_INLINE = 65536
# As many as unix(7) lets one message carry.
_MAX_FDS = 253
_HEADER = b"\0memfd"


def send(channel: socket.socket, message: tuple[Any, ...], fds: tuple[int, ...] = ()) -> None:
    """Send ``message`` and copies of ``fds``."""
    packet = marshal.dumps(message)
    if len(packet) > _INLINE:
        _send_large(channel, packet, fds)
        return
    _send_packet(channel, packet, fds)


def _send_packet(channel: socket.socket, packet: bytes, fds: tuple[int, ...]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    channel.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL)


def _send_large(channel: socket.socket, packet: bytes, fds: tuple[int, ...]) -> None:
    fd = os.memfd_create("message", os.MFD_CLOEXEC)
    try:
        view = memoryview(packet)
        while view:
            view = view[os.write(fd, view) :]
        _send_packet(channel, _HEADER, (fd, *fds))
    finally:
        os.close(fd)


def refuse(channel: socket.socket, step: str, error: OSError) -> None:
    """Answer that ``step`` could not be done."""
    send(channel, ("failed", step, getattr(error, "call", ""), error.errno or 0, str(error.filename or "")))


def receive(channel: socket.socket, flags: int = 0) -> tuple[tuple[object, ...], list[int]] | None:
    """Return the next message and the descriptors that came with it (close-on-exec), or None at end of file."""
    try:
        packet, ancillary = _receive_packet(channel, flags)
    except ConnectionResetError:
        # Said once, of a peer that died with something unread; its last words are still there.
        packet, ancillary = _receive_packet(channel, flags)
    fds = [fd for level, kind, data in ancillary if kind == socket.SCM_RIGHTS for fd in _unpack(data)]
    if packet.startswith(_HEADER):
        packet = _read_all(fds.pop(0))
    if not packet:
        return None
    return marshal.loads(packet), fds


def _receive_packet(channel: socket.socket, flags: int) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    return channel.recvmsg(_INLINE, socket.CMSG_SPACE(_MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC | flags)[:2]


def _unpack(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])


def _read_all(fd: int) -> bytes:
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def seqpacket_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
