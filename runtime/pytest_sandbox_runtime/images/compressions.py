"""PYTEST_DONT_REWRITE. What data may be packed by, told by how it begins."""

from __future__ import annotations

NONE, GZIP, ZSTD, BZIP2, XZ = "none", "gzip", "zstd", "bzip2", "xz"
_MAGIC = {b"\x1f\x8b": GZIP, b"BZh": BZIP2, b"\xfd7zXZ\0": XZ, b"\x28\xb5\x2f\xfd": ZSTD}


def sniff(head: bytes) -> str:
    """Return what data that begins with ``head`` is packed by, ``none`` for nothing that is known."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), NONE)
