"""PYTEST_DONT_REWRITE. Headers of a tar, byte for byte the same on every Python: POSIX.1-2001, pax(1).

A pax record is written for what does not fit in the ustar header, and for nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 512
END = bytes(2 * BLOCK)
FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_EXTENDED = b"x"
_EXTENDED_NAME = b"PaxHeaders/entry"
_NAME_BYTES = 100
_MAX_ID = 0o7777777
_MAX_NUMBER = 0o77777777777


class Entry(NamedTuple):
    """A member: its name is without a slash at the end, its mtime in whole seconds, its attributes by name."""

    name: bytes
    kind: bytes = FILE
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    attributes: tuple[tuple[str, bytes], ...] = ()


def encode(entry: Entry) -> bytes:
    """Return all blocks that come before the data of ``entry``."""
    name = entry.name + b"/" if entry.kind == DIRECTORY else entry.name
    records = _records(entry, name)
    header = _ustar(entry, name)
    if not records:
        return header
    extended = Entry(_EXTENDED_NAME, _EXTENDED, 0o644, size=len(records))
    return _ustar(extended, extended.name) + records + padding(len(records)) + header


def padding(size: int) -> bytes:
    """Return what fills the last block of ``size`` bytes."""
    return bytes(-size % BLOCK)


def _ustar(entry: Entry, name: bytes) -> bytes:
    header = b"".join(
        (
            name[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"),
            b"%07o\0" % entry.mode,
            b"%07o\0" % _fitting(entry.uid, _MAX_ID),
            b"%07o\0" % _fitting(entry.gid, _MAX_ID),
            b"%011o\0" % _fitting(entry.size, _MAX_NUMBER),
            b"%011o\0" % _fitting(entry.mtime, _MAX_NUMBER),
            b"        ",  # the checksum, counted as spaces
            entry.kind,
            entry.link[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"),
            b"ustar\x0000",
            bytes(64),  # the names of user and group, which are another machine's
            b"%07o\0%07o\0" % entry.device,
        )
    ).ljust(BLOCK, b"\0")
    return b"%b%06o\0 %b" % (header[:148], sum(header), header[156:])


def _fitting(number: int, largest: int) -> int:
    return number if 0 <= number <= largest else 0


def _records(entry: Entry, name: bytes) -> bytes:
    texts = [(b"path", name)] if len(name) > _NAME_BYTES else []
    if len(entry.link) > _NAME_BYTES:
        texts.append((b"linkpath", entry.link))
    # Only then do readers take the records of a name for the bytes that they are.
    records = [] if all(_is_utf8(text) for _, text in texts) else [(b"hdrcharset", b"BINARY")]
    records += texts
    numbers = ((b"uid", entry.uid, _MAX_ID), (b"gid", entry.gid, _MAX_ID), (b"size", entry.size, _MAX_NUMBER))
    for key, number, largest in (*numbers, (b"mtime", entry.mtime, _MAX_NUMBER)):
        if not 0 <= number <= largest:
            records.append((key, b"%d" % number))
    records += [(b"SCHILY.xattr." + key.encode("utf-8", "surrogateescape"), value) for key, value in entry.attributes]
    return b"".join(_record(key, value) for key, value in records)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _record(key: bytes, value: bytes) -> bytes:
    if b"=" in key:
        raise ValueError(f"an extended attribute {key!r} has a name that no tar can say")
    # The length counts its own digits.
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    if len(str(size)) > len(str(rest)):
        size = rest + len(str(size))
    return b"%d %b=%b\n" % (size, key, value)
