"""PYTEST_DONT_REWRITE. The way from a network to the internet: slirp4netns(1), a TCP/IP stack of an ordinary process.

It has a tap device on the bridge, speaks for everybody there, and makes its connections where it runs: on the host's
network, as whoever runs the tests. Nothing is added to that network, and no privilege is needed.
"""

from __future__ import annotations

import errno
import os
import select

from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.light import signal
from pytest_sandbox_runtime.kernel.processes import Prctl, close_range, prctl

TAP = "tap0"
# Where it is in a network: the router, and its own answers to DNS, which nobody asks.
ROUTER, NAMES = 2, 3
_NAMESPACE_FD, _READY_FD = 3, 4
# Milliseconds until it has its device, of which it needs some ten.
_PATIENCE = 10_000


def start(program: str, namespace: int, subnet: str, mtu: int) -> int:
    """Start ``program`` for the network in ``namespace``; returns its pid once its device is there. Raises OSError."""
    ready, told = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            _become(program, namespace, told, subnet, mtu)
        finally:
            os._exit(1)
    os.close(told)
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    try:
        if not poll.poll(_PATIENCE):
            os.kill(pid, signal.SIGKILL)
        said = os.read(ready, 16)
    finally:
        os.close(ready)
    if not said:
        # Why is in the run's log.
        os.waitpid(pid, 0)
        raise SyscallError("execve", errno.EIO, program)
    return pid


def _become(program: str, namespace: int, told: int, subnet: str, mtu: int) -> None:
    prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    spare = os.dup(told)
    os.dup2(namespace, _NAMESPACE_FD)
    os.dup2(spare, _READY_FD)
    close_range(_READY_FD + 1)
    words = ("--cidr", subnet, "--mtu", str(mtu), "--disable-host-loopback", "--ready-fd", str(_READY_FD))
    argv = (program, *words, "--netns-type=path", f"/proc/self/fd/{_NAMESPACE_FD}", TAP)
    os.execv(program, argv)  # noqa: S606  it is what was asked for
