"""PYTEST_DONT_REWRITE. Packets of a network namespace, on their way into a file: a fork of the supervisor for each.

The kernel puts them, with its timestamps, into a ring in this process's memory: so an ordinary user has as much room
for them as root has, where a receive buffer may not be larger than net.core.rmem_max. They are written from where they
lie, and Python copies none of them.

The file is a pcap with nanoseconds, not a pcapng: every reader and library knows it, a header of 16 bytes before each
packet has room where the kernel has put its own, and what a pcapng would add, the names of interfaces, is told by the
packets' addresses, as networks of a sandbox do not overlap.
"""

from __future__ import annotations

import os
import select
import struct
import sys
from collections import namedtuple

from pytest_sandbox_runtime.kernel.light import socket
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, setns
from pytest_sandbox_runtime.kernel.packets import (
    BLOCK,
    BLOCK_STATUS,
    PACKET,
    READY,
    lost,
    map_ring,
    open_packets,
    watch_all_of,
)
from pytest_sandbox_runtime.kernel.processes import become_helper
from pytest_sandbox_runtime.kernel.seccomp import INSTRUCTION
from pytest_sandbox_runtime.supervisor.messages import receive, send

# A packet may have 64 KiB: between sandboxes nobody cuts what TCP sends (GSO).
BLOCK_SIZE = 1 << 20
# Milliseconds for which a block that is not full is left to the kernel.
_PATIENCE = 16
# IOV_MAX: writev(2).
_MOST_AT_ONCE = 1024

_HEADER = struct.Struct("=IHHiIII")
_NANOSECONDS = 0xA1B23C4D
_ETHERNET = 1
_RECORD = struct.Struct("=IIII")

# How many bytes of a packet are written, and how many blocks of BLOCK_SIZE wait for that.
How = namedtuple("How", "snaplen blocks")


def capture(namespace: int, life: int, device: str, file: int, control: int, how: How) -> int:
    """Write what crosses the devices of ``namespace``, or only ``device``, to ``file``; returns the fork's pid.

    It ends when ``life`` is readable (-1: never), or when ``control`` hears "stop" or is closed. There it tells how it
    got on: ("began", errno), which is 0 where it did; when asked to "count" ("counts", packets, dropped); and as its
    last words ("ended", packets, dropped, errno), which is what kept it from writing, or 0.
    """
    pid = os.fork()
    if pid == 0:
        try:
            _become(namespace, life, device, file, control, how)
        except BaseException:
            # Goes to the run's supervisor.log.
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(1)
    return pid


def _become(namespace: int, life: int, device: str, file: int, control: int, how: How) -> None:
    become_helper(namespace, file, control, *([] if life == -1 else [life]))
    channel = socket.socket(fileno=control)
    try:
        setns(namespace, CloneFlag.NEWNET)
        packets = open_packets(_each_once(how.snaplen))
        if device:
            watch_all_of(packets, device)
        recorder = Recorder(packets, file, how)
    except OSError as error:
        _tell(channel, ("began", error.errno or 1))
        return
    _tell(channel, ("began", 0))
    _serve(recorder, channel, life)


def _each_once(snaplen: int) -> bytes:
    """Return the filter that lets ``snaplen`` bytes of a packet through, and those of the loopback device once.

    There each is seen twice, as it goes and as it comes.
    """
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    packet_type, interface = 0xFFFFF004, 0xFFFFF008
    outgoing, loopback = 4, 1
    program = (
        (load, 0, 0, packet_type),
        (jump_if_equal, 0, 2, outgoing),
        (load, 0, 0, interface),
        (jump_if_equal, 1, 0, loopback),
        (answer, 0, 0, snaplen),
        (answer, 0, 0, 0),
    )
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in program)


class Recorder:
    """A ring, and the file that it is emptied into."""

    def __init__(self, packets: socket.socket, file: int, how: How) -> None:
        self.packets = packets
        self._written = 0
        self._dropped = 0
        self._file = file
        self._size = 0
        self._write([_HEADER.pack(_NANOSECONDS, 2, 4, 0, 0, how.snaplen, _ETHERNET)])
        self._blocks = how.blocks
        self._ring = map_ring(packets, BLOCK_SIZE, how.blocks, _PATIENCE)
        self._view = memoryview(self._ring)
        self._next = 0
        self._last = 0

    def count(self) -> tuple[int, int]:
        """Return how many packets were written, and how many came while there was no place for them."""
        self._dropped += lost(self.packets)
        return self._written, self._dropped

    def write_ready(self) -> None:
        """Write the packets of the blocks that the kernel has handed over; raises OSError."""
        # Not of those that it hands over meanwhile: there may be no end of them.
        for _ in range(self._blocks):
            start = self._next * BLOCK_SIZE
            status, count, first, _, number = BLOCK.unpack_from(self._ring, start + BLOCK_STATUS)
            if not status & READY:
                return
            self._write(self._records(start + first, count))
            self._written += count
            self._last = number
            self._next = (self._next + 1) % self._blocks
            self._ring[start + BLOCK_STATUS : start + BLOCK_STATUS + 4] = bytes(4)

    def write_all(self) -> None:
        """Write all that has come until now; raises OSError."""
        self.write_ready()
        poll = select.poll()
        poll.register(self.packets.fileno(), select.POLLIN)
        begun = self._begun()
        while begun and begun == self._begun():
            # It is handed over soon, by the kernel's own clock.
            poll.poll(_PATIENCE)
            self.write_ready()

    def cut(self) -> None:
        """Let the file end behind its last whole packets."""
        os.ftruncate(self._file, self._size)

    def _begun(self) -> int:
        """Return the number of the block that the kernel has put packets into, 0 where there is none."""
        _, count, _, _, number = BLOCK.unpack_from(self._ring, self._next * BLOCK_SIZE + BLOCK_STATUS)
        # Until it begins one anew, the kernel leaves there what it was before.
        return int(number) if count and number > self._last else 0

    def _records(self, at: int, count: int) -> list[memoryview]:
        """Return the packets of a block, each with its header, which replaces the end of the kernel's."""
        ring, view, records = self._ring, self._view, []
        for _ in range(count):
            step, seconds, nanoseconds, kept, length, _, offset = PACKET.unpack_from(ring, at)
            begin = at + offset - 16
            _RECORD.pack_into(ring, begin, seconds, nanoseconds, kept, length)
            records.append(view[begin : begin + 16 + kept])
            at += step
        return records

    def _write(self, records: list[memoryview] | list[bytes]) -> None:
        for begin in range(0, len(records), _MOST_AT_ONCE):
            some = records[begin : begin + _MOST_AT_ONCE]
            size = sum(map(len, some))
            written = os.writev(self._file, some)
            if written < size:
                # The disk is full, or something like it: the rest says what.
                rest = b"".join(some)[written:]
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            self._size += size


def _serve(recorder: Recorder, channel: socket.socket, life: int) -> None:
    poll = select.poll()
    for fd in (recorder.packets.fileno(), channel.fileno(), life):
        if fd != -1:
            poll.register(fd, select.POLLIN)
    code = 0
    try:
        while not _is_over({fd for fd, _ in poll.poll()}, recorder, channel, life):
            pass
        recorder.write_all()
    except OSError as error:
        code = error.errno or 1
        recorder.cut()
    _tell(channel, ("ended", *recorder.count(), code))


def _tell(channel: socket.socket, message: tuple[object, ...]) -> None:
    try:
        send(channel, message)
    except OSError:
        # Nobody listens any more.
        return


def _hear(channel: socket.socket) -> str:
    try:
        received = receive(channel)
    except OSError:
        received = None
    return "stop" if received is None else str(received[0][0])


def _is_over(ready: set[int], recorder: Recorder, channel: socket.socket, life: int) -> bool:
    """Do what is to be done for the descriptors that are ``ready``; returns whether that was the last."""
    if life in ready:
        return True
    if channel.fileno() in ready:
        if _hear(channel) == "stop":
            return True
        recorder.write_all()
        _tell(channel, ("counts", *recorder.count()))
    else:
        recorder.write_ready()
    return False
