"""PYTEST_DONT_REWRITE. Captures of packets, as clients ask for them."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_sandbox_runtime.supervisor.clients import Sandbox
    from pytest_sandbox_runtime.supervisor.networks import Networks


class Captures:
    """Those of the run's sandboxes, by name, and of its networks, by number."""

    def __init__(self, sandboxes: dict[str, Sandbox], networks: Networks) -> None:
        self._sandboxes = sandboxes
        self._networks = networks

    def begin(self, where: str | int, how: tuple[int, int], file: int, control: int) -> None:
        """Write what crosses ``where`` to ``file``: see network.capture. Raises OSError where it has gone."""
        if isinstance(where, int):
            self._networks.capture(where, file, control, how)
            return
        sandbox = self._sandboxes.get(where)
        if sandbox is None or sandbox.status is not None:
            raise OSError(errno.ESRCH, "", "")
        from pytest_sandbox_runtime.network.capture import How, capture

        pidfd = os.pidfd_open(sandbox.pid)
        try:
            # It sees the end by itself, and writes what came until then.
            capture(pidfd, pidfd, "", file, control, How(*how))
        finally:
            os.close(pidfd)
