"""PYTEST_DONT_REWRITE. Descriptors that are waited for together, each with what is to be done when it is ready."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """What is done is told whether there is something to read; if not, the other end has gone."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._acts: dict[int, Callable[[bool], None]] = {}

    def watch(self, fd: int, act: Callable[[bool], None]) -> None:
        """Call ``act`` whenever ``fd`` is ready."""
        self._acts[fd] = act
        self._poll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Wait for ``fd`` no more, which is still open. Again: nothing."""
        if self._acts.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def serve(self) -> None:
        """Do what there is to do, for ever."""
        while True:
            for fd, events in self._poll.poll():
                # An earlier event of the same round may have ended what this one is about.
                if fd in self._acts:
                    try:
                        self._acts[fd](bool(events & select.EPOLLIN))
                    except OSError:
                        # Whoever asked has gone, or the kernel had no memory: they ask again.
                        continue
