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

from pytest_sandbox_runtime.kernel.light import signal, socket
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, setns
from pytest_sandbox_runtime.kernel.packets import (
    BLOCK,
    BLOCK_COUNT,
    BLOCK_STATUS,
    PACKET,
    READY,
    lost,
    map_ring,
    open_packets,
    watch_all_of,
)
from pytest_sandbox_runtime.kernel.processes import Prctl, close_range, prctl
from pytest_sandbox_runtime.kernel.seccomp import INSTRUCTION
from pytest_sandbox_runtime.supervisor.messages import receive, send

# A packet may have 64 KiB and more: devices of sandboxes leave it to nobody to cut what TCP sends (GSO).
MAX_SNAPLEN = 1 << 18
_BLOCK = 1 << 20
_BLOCKS = 16
# Milliseconds for which a block that is not full is left to the kernel.
_PATIENCE = 16
# IOV_MAX: writev(2).
_MOST_AT_ONCE = 1024

_HEADER = struct.Struct("=IHHiIII")
_NANOSECONDS = 0xA1B23C4D
_ETHERNET = 1
_RECORD = struct.Struct("=IIII")


def capture(namespace: int, life: int, device: str, file: int, control: int, snaplen: int) -> int:
    """Write what crosses the devices of ``namespace``, or only ``device``, to ``file``; returns the fork's pid.

    It ends when ``life`` is readable (-1: never), or when ``control`` says so or is closed. There it says how it got
    on: ("began", errno), which is not 0 where it could not; ("counts", packets, dropped) when asked to "count"; and as its last words
    ("ended", packets, dropped, errno), errno being what kept it from writing, or 0.
    """
    pid = os.fork()
    if pid == 0:
        try:
            _become(namespace, life, device, file, control, snaplen)
        except BaseException:
            # Goes to the run's supervisor.log.
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(1)
    return pid


def _become(namespace: int, life: int, device: str, file: int, control: int, snaplen: int) -> None:
    prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    channel = socket.socket(fileno=control)
    try:
        setns(namespace, CloneFlag.NEWNET)
        _close_all_but(file, control, *([] if life == -1 else [life]))
        packets = open_packets(_each_once(snaplen))
        if device:
            watch_all_of(packets, device)
        recorder = Recorder(packets, file, snaplen)
    except OSError as error:
        send(channel, ("began", error.errno or 1))
        return
    send(channel, ("began", 0))
    _serve(recorder, channel, life)


def _close_all_but(*kept: int) -> None:
    first = 3
    for fd in sorted(kept):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


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

    def __init__(self, packets: socket.socket, file: int, snaplen: int) -> None:
        self.packets = packets
        self.written = 0
        self._dropped = 0
        self._file = file
        self._write([_HEADER.pack(_NANOSECONDS, 2, 4, 0, 0, snaplen, _ETHERNET)])
        self._ring = map_ring(packets, _BLOCK, _BLOCKS, _PATIENCE)
        self._view = memoryview(self._ring)
        self._next = 0

    @property
    def dropped(self) -> int:
        """How many packets came while there was no place for them."""
        self._dropped += lost(self.packets)
        return self._dropped

    def write_ready(self) -> None:
        """Write the packets of all blocks that the kernel has handed over; raises OSError."""
        while True:
            start = self._next * _BLOCK
            status, count, first = BLOCK.unpack_from(self._ring, start + BLOCK_STATUS)
            if not status & READY:
                return
            self._write(self._records(start + first, count))
            self.written += count
            # Else it would look as if something were in it until the kernel begins to fill it again.
            self._ring[start + BLOCK_COUNT : start + BLOCK_COUNT + 4] = bytes(4)
            self._ring[start + BLOCK_STATUS : start + BLOCK_STATUS + 4] = bytes(4)
            self._next = (self._next + 1) % _BLOCKS

    def write_all(self) -> None:
        """Write all that has come until now; raises OSError."""
        self.write_ready()
        poll = select.poll()
        poll.register(self.packets.fileno(), select.POLLIN)
        if self._is_begun():
            # Soon: by the kernel's own clock.
            poll.poll()
            self.write_ready()

    def _is_begun(self) -> bool:
        _, count, _ = BLOCK.unpack_from(self._ring, self._next * _BLOCK + BLOCK_STATUS)
        return bool(count)

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
            written = os.writev(self._file, some)
            if written < sum(map(len, some)):
                # The disk is full, or something like it: the rest says what.
                rest = b"".join(some)[written:]
                while rest:
                    rest = rest[os.write(self._file, rest) :]


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
    send(channel, ("ended", recorder.written, recorder.dropped, code))


def _is_over(ready: set[int], recorder: Recorder, channel: socket.socket, life: int) -> bool:
    """Do what is to be done for the descriptors that are ``ready``; returns whether that was the last."""
    if life in ready:
        return True
    if channel.fileno() in ready:
        received = receive(channel)
        if received is None or received[0] == ("stop",):
            return True
        recorder.write_all()
        send(channel, ("counts", recorder.written, recorder.dropped))
    else:
        recorder.write_ready()
    return False
