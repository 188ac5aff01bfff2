"""PYTEST_DONT_REWRITE. The C halves of socket and signal, with the same names in them.

The Python halves import enum and selectors, and turn every constant into a member of one: for the supervisor that is
ten milliseconds at its start, and in every sandbox half a megabyte of pages that it does not share.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
else:
    import _signal as signal
    import _socket as socket

__all__ = ["signal", "socket"]
