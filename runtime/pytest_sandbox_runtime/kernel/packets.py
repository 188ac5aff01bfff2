"""PYTEST_DONT_REWRITE. packet(7): a socket that sees what crosses network devices, and the ring that it fills."""

from __future__ import annotations

import ctypes
import mmap
import struct

from pytest_sandbox_runtime.kernel.light import socket
from pytest_sandbox_runtime.kernel.seccomp import INSTRUCTION

# struct tpacket_block_desc, from its status on: that, how many packets it has, where the first one is, its length, and
# which one it is since the start, from 1 on.
BLOCK = struct.Struct("=IIIIQ")
BLOCK_STATUS = 8
READY = 1  # TP_STATUS_USER
# struct tpacket3_hdr: how far it is to the next one, seconds, nanoseconds, bytes that are here, bytes that there were,
# status, and where the first of them is.
PACKET = struct.Struct("=IIIIIIH")

_ETH_P_ALL = 3
_SOL_PACKET = 263
_ADD_MEMBERSHIP, _RX_RING, _STATISTICS, _VERSION = 1, 5, 6, 10
_TPACKET_V3 = 2
_MR_PROMISC = 1
_SO_ATTACH_FILTER = 26
# What the kernel calls a frame is here only what its arithmetic asks for: blocks are filled without gaps.
_FRAME = 2048


def open_packets(program: bytes) -> socket.socket:
    """Return a socket for the packets of all devices that ``program``, a classic BPF filter, lets through."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ALL))
    held = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HP", len(program) // INSTRUCTION.size, ctypes.addressof(held))
    packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
    return packets


def watch_all_of(packets: socket.socket, device: str) -> None:
    """See packets of ``device`` only, and also those that go past this machine."""
    packets.bind((device, _ETH_P_ALL))
    membership = struct.pack("iHH8x", socket.if_nametoindex(device), _MR_PROMISC, 0)
    packets.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, membership)


def map_ring(packets: socket.socket, block: int, count: int, patience: int) -> mmap.mmap:
    """Have packets come into ``count`` blocks of ``block`` bytes of this process's memory, and into no queue.

    A block is handed over when it is full, or ``patience`` milliseconds after its first packet. What was queued is
    forgotten. The kernel waits here until no other processor is at the socket, some milliseconds.
    """
    packets.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V3)
    frames = block * count // _FRAME
    packets.setsockopt(_SOL_PACKET, _RX_RING, struct.pack("7I", block, count, _FRAME, frames, patience, 0, 0))
    return mmap.mmap(packets.fileno(), block * count)


def lost(packets: socket.socket) -> int:
    """Return how many packets have found no place in the ring since this was last asked."""
    _, dropped, _ = struct.unpack("III", packets.getsockopt(_SOL_PACKET, _STATISTICS, 12))
    return int(dropped)
