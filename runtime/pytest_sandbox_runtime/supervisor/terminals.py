"""PYTEST_DONT_REWRITE. Terminals of commands, pty(7), and what is printed there on its way to a file."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios

# termios has these two from Python 3.13 on: ioctl_tty(2).
_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430
_CHUNK = 65536
# More than a terminal holds: what goes on to print holds nobody up.
_MOST_LAST_WORDS = 64


def open_terminal(rows: int, columns: int) -> tuple[int, int]:
    """Return the two sides of a new terminal; raises OSError."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, b"\0\0\0\0"))[0]
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    return master, os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


class Terminals:
    """Terminals that nobody types on: what commands print there goes to files, which are never full for long."""

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self._masters: dict[int, int] = {}
        # Of those that are listened to.
        self._files: dict[int, int] = {}

    def add(self, pid: int, master: int, file: int) -> None:
        """Have what the command ``pid`` prints go to ``file``; ``master`` is closed with its end."""
        os.set_blocking(master, False)
        self._masters[pid] = master
        self._files[master] = os.dup(file)
        self._poll.register(master, select.POLLIN)

    def move(self, master: int) -> bool:
        """Move what was printed; False where there was nothing, or nobody is there to print any more."""
        if master not in self._files:
            return False
        try:
            printed = os.read(master, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: all have closed it, and may live on without.
            self._forget(master)
            return False
        try:
            while printed:
                printed = printed[os.write(self._files[master], printed) :]
        except OSError:
            pass  # a full disk loses what is printed, and ends nobody
        return True

    def end(self, pid: int) -> None:
        """Move what the command, which has died, has printed last, and hang up."""
        master = self._masters.pop(pid, None)
        if master is None:
            return
        for _ in range(_MOST_LAST_WORDS):
            if not self.move(master):
                break
        if master in self._files:
            self._forget(master)
        os.close(master)

    def _forget(self, master: int) -> None:
        self._poll.unregister(master)
        os.close(self._files.pop(master))
