"""PYTEST_DONT_REWRITE. The start of a run: ``python -I -S __main__.py SOCKET LOCK RUN IDS PLACE``.

Goes where no privilege is needed any more (without root: a user namespace of the run's own), makes the pid namespace
whose PID 1 the supervisor is, and waits for its end.
"""

from __future__ import annotations

import sys

# -I -S: no site-packages, no script's folder, so that nothing but this package and the standard library is found.
sys.path.insert(0, __file__.rsplit("/", 3)[0])

import os

from pytest_sandbox_runtime.cgroups import find
from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.light import signal, socket
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl
from pytest_sandbox_runtime.supervisor.identities import map_identities
from pytest_sandbox_runtime.supervisor.messages import send
from pytest_sandbox_runtime.supervisor.server import START, Supervisor


def main() -> int:
    """Launch the supervisor and return its exit status."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    lock, run, ids, place = int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
    os.umask(0o022)  # the caller's has no say in a sandbox
    for fd in (channel.fileno(), lock):
        os.set_inheritable(fd, False)
    try:
        # Where limits need this process's group to be emptied first, that can be done only while its pids are seen.
        find().prepare()
        # A terminal's Ctrl-C is pytest's business, and so is hanging up.
        os.setsid()
        if ids != "root":
            map_identities(ids)
        unshare(CloneFlag.NEWNS | CloneFlag.NEWPID)
        mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)
        pid = os.fork()
    except OSError as error:
        call = error.call if isinstance(error, SyscallError) else ""
        send(channel, ("failed", START, call, error.errno or 0, str(error.filename or "")))
        return 1
    if pid == 0:
        prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
        os._exit(Supervisor(channel, run, has_disk=place == "disk", is_privileged=ids == "root").serve())
    channel.close()
    os.close(lock)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF


if __name__ == "__main__":
    os._exit(main())
