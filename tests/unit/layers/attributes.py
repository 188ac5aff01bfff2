"""Extended attributes of files in layers."""

from __future__ import annotations

CAPABILITY = b"\1\0\0\2\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
OVERRIDE = "user.containers.override_stat"
