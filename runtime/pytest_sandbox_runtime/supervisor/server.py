"""PYTEST_DONT_REWRITE. The fork server: PID 1 of the run's pid namespace, parent of every sandbox's init.

Single-threaded. Whoever asks is a client on a socket of its own, with a pidfd of its process: when either ends, the
client's sandboxes end; when the first client ends, the run does, and the kernel takes what is left.
"""

from __future__ import annotations

import gc
import marshal
import os
import select

from pytest_sandbox_runtime.kernel.capabilities import capget, capset
from pytest_sandbox_runtime.kernel.light import signal, socket
from pytest_sandbox_runtime.kernel.mounts import mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, setns, unshare
from pytest_sandbox_runtime.kernel.processes import block, signalfd
from pytest_sandbox_runtime.network.namespaces import Namespaces, uncover_settings
from pytest_sandbox_runtime.network.watch import Watch
from pytest_sandbox_runtime.supervisor.boot import become_init
from pytest_sandbox_runtime.supervisor.clients import Client, Sandbox
from pytest_sandbox_runtime.supervisor.confinement import cut_bounding_set
from pytest_sandbox_runtime.supervisor.directories import Directories, mount_stack, unmount
from pytest_sandbox_runtime.supervisor.groups import Groups
from pytest_sandbox_runtime.supervisor.messages import receive, refuse, send, seqpacket_pair
from pytest_sandbox_runtime.supervisor.removal import SANDBOXES, kept_path, remove_run, sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pytest_sandbox_runtime.supervisor.directories import Directory
    from pytest_sandbox_runtime.supervisor.network_requests import NetworkRequests

    # A network's number, the names by which to be found on it, and the host's number or None.
    Join = tuple[int, tuple[str, ...], int | None]

SOCKET_NAME = "supervisor"
# The step that a launcher fails at.
START = "start the supervisor"
# Memory that only this process and its forks see, where none of them needs what the host has there. Thin layers lie
# in it, as overlayfs refuses one lower directory inside another (ELOOP), and "/" is one; and it is no place in the
# user's files, as these cannot be a lower directory with a mount in them (EINVAL in a user namespace).
MEMORY = "/dev/pts"
LAYERS = f"{MEMORY}/layers"
_MOST_MOUNTED = 16
# Many tests need two: a server, and a client.
_MOST_AHEAD = 2
# Milliseconds without a request after which none is about to come.
_A_WHILE = 100


class Supervisor:
    """All the sandboxes of a run, whose directory is ``run``; ``has_disk`` where that can hold an upper directory."""

    def __init__(self, channel: socket.socket, run: str, *, has_disk: bool, is_privileged: bool) -> None:
        self._has_disk = has_disk
        self._has_memory = True
        self._first = Client(channel)
        self._run = run
        self._clients = {self._first}
        self._poll = select.poll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._by_pid: dict[int, Sandbox] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self._jobs: dict[bytes, dict[str, Any]] = {}
        self._names = 0
        self._memory = Directories(f"{MEMORY}/{SANDBOXES}")
        self._disk = Directories(os.path.join(run, SANDBOXES))
        # An ordinary user's supervisor would not get back to the host's network.
        self._namespaces = Namespaces(may_return=is_privileged)
        # Loaded when a client first asks for what it has: in most runs none does.
        self._networking: NetworkRequests | None = None
        self._groups = Groups(os.path.basename(run))
        self._own_pid_namespace = -1
        self._listener: socket.socket | None = None
        self._requests: dict[str, Callable[..., None]] = {
            "hello": self._hello,
            "create": self._create,
            "remove": self._remove,
            "listen": self._listen,
        }

    def serve(self) -> int:
        """Serve until the first client has gone and everything is put away; returns the exit status."""
        uncover_settings()
        mount("tmpfs", MEMORY, "tmpfs", 0, "mode=755")
        os.mkdir(LAYERS)
        os.mkdir(f"{MEMORY}/{SANDBOXES}")
        os.mkdir(f"{MEMORY}/empty", 0o555)
        self._has_memory = _can_hold_upper(MEMORY) or not self._has_disk
        os.chdir("/")
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        block([signal.SIGCHLD])
        deaths = signalfd([signal.SIGCHLD])
        self._watch(deaths, lambda: self._reap(deaths))
        self._watch_client(self._first)
        # A helper of the supervisor's own inherits its rights; what a sandbox starts has none of them: see confine.
        has = capget()
        capset(has.effective, has.permitted, has.permitted)
        cut_bounding_set()
        # The collector would touch, and so copy, every page that a sandbox's init shares with this process.
        gc.disable()
        gc.freeze()
        self._watch_process = Watch(self._run)
        while self._clients or self._by_pid:
            for fd, _ in self._ready():
                # An earlier event of the same round may have ended what this one is about.
                if fd in self._watched:
                    self._watched[fd]()
        self._groups.remove()
        self._watch_process.end()
        self._put_away()
        return 0

    def _put_away(self) -> None:
        # Removals that were given to a fork end with this process, PID 1, so they are waited for.
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
        os.chdir("/")
        self._disk.unmount_spare()
        remove_run(self._run)

    def _watch(self, fd: int, act: Callable[[], None]) -> None:
        self._watched[fd] = act
        self._poll.register(fd, select.POLLIN)

    def _unwatch(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _watch_client(self, client: Client) -> None:
        self._watch(client.channel.fileno(), lambda: self._answer(client))

    def _ready(self) -> list[tuple[int, int]]:
        # Who has just made a network is about to ask for sandboxes on it.
        grace = 1 if self._networking is not None and self._networking.networks.is_any_filling else 0
        ready = self._poll.poll(grace)
        while not ready and self._get_ahead():
            ready = self._poll.poll(grace)
        if not ready and self._namespaces.has_retired:
            ready = self._poll.poll(_A_WHILE)
            if not ready:
                self._namespaces.end_retired()
        return ready or self._poll.poll()

    def _get_ahead(self) -> bool:
        for client in self._clients:
            if client.repeated and len(client.standby) < _MOST_AHEAD:
                try:
                    client.standby.append(self._launch(client.repeated, self._namespaces))
                except OSError:
                    # Who asks next meets the same error, and is told.
                    client.repeated = b""
                return True
        try:
            return self._networking is not None and self._networking.networks.get_ahead()
        except OSError:
            return False

    def _answer(self, client: Client) -> None:
        try:
            received = receive(client.channel)
        except ConnectionError:
            received = None
        if received is None:
            self._lose(client)
            return
        (word, *operands), fds = received
        if word not in self._requests:
            self._load_networking()
        try:
            self._requests[str(word)](client, *operands, *fds)
        except BrokenPipeError:
            self._lose(client)

    def _hello(self, client: Client, pidfd: int) -> None:
        client.pidfd = pidfd
        # A fork of the client may hold its socket open; its death is seen all the same.
        self._watch(pidfd, lambda: self._lose(client))
        memory = os.open(MEMORY, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        send(client.channel, ("welcome",), (memory, self._watch_process.channel.fileno()))
        os.close(memory)
        if client is self._first:
            sweep(self._run)

    def _create(self, client: Client, job: bytes, joins: tuple[Join, ...]) -> None:
        try:
            sandbox = self._take_standby(client, job) or self._launch(job, self._namespaces if joins else None)
        except OSError as error:
            refuse(client.channel, "make the sandbox", error)
            return
        client.repeated = job if client.last_job == job else b""
        client.last_job = job
        try:
            # While it boots.
            addresses = self._join(sandbox, joins) if joins else ()
        except OSError as error:
            self._discard(sandbox)
            refuse(client.channel, "join the network", error)
            return
        client.sandboxes[sandbox.name] = sandbox
        self._hand_out(client, sandbox, addresses)

    def _join(self, sandbox: Sandbox, joins: tuple[Join, ...]) -> tuple[tuple[str, ...], ...]:
        assert self._networking is not None  # somebody has made the networks
        networks = self._networking.networks
        return tuple(networks.join(sandbox.member, *join) for join in joins if sandbox.member is not None)

    def _load_networking(self) -> None:
        from pytest_sandbox_runtime.supervisor.network_requests import NetworkRequests

        self._networking = NetworkRequests(self._sandboxes, self._namespaces, self._watch_process, self._discard)
        self._requests.update(self._networking.requests)

    def _take_standby(self, client: Client, job: bytes) -> Sandbox | None:
        while client.standby:
            sandbox = client.standby.pop(0)
            if client.repeated == job and sandbox.status is None:
                return sandbox
            self._discard(sandbox)
        return None

    def _hand_out(self, client: Client, sandbox: Sandbox, addresses: tuple[tuple[str, ...], ...]) -> None:
        pidfd = os.pidfd_open(sandbox.pid)
        try:
            paths = sandbox.group.paths() if sandbox.group is not None else ()
            send(
                client.channel,
                ("created", sandbox.name, sandbox.directory.path, paths, addresses),
                (pidfd, sandbox.control.fileno()),
            )
        finally:
            os.close(pidfd)
            sandbox.control.close()

    def _launch(self, job: bytes, namespaces: Namespaces | None = None) -> Sandbox:
        work = self._jobs.get(job)
        if work is None:
            work = self._jobs[job] = marshal.loads(job)
        self._names += 1
        name = str(self._names)
        place = self._disk if self._has_disk and (work["on_disk"] or not self._has_memory) else self._memory
        directory = self._directory_of(place, job, work)
        group = self._groups.create(name, work["limits"])
        namespace = namespaces.take() if namespaces is not None and work["namespaces"] & CloneFlag.NEWNET else None
        member = None
        if work["has_hosts"] and namespace is not None:
            from pytest_sandbox_runtime.supervisor.networks import Member

            member = Member(name, work["hostname"], work["extra_hosts"], namespace, directory.path)
        theirs, ours = seqpacket_pair()
        pid = self._fork_into_pid_namespace()
        if pid == 0:
            become_init(ours, self._watch_process.channel, directory, work, group, namespace, name)
        ours.close()
        sandbox = self._by_pid[pid] = Sandbox(name, pid, theirs, group, place, directory, namespace, member)
        self._sandboxes[name] = sandbox
        sandbox.has_more_rights = bool(work["cap_add"])
        return sandbox

    def _directory_of(self, place: Directories, job: bytes, work: dict[str, Any]) -> Directory:
        # Each fork's mount namespace is a copy of this one: with too many mounts that would cost more than it spares.
        is_kept_mounted = work["is_immutable"] and len(self._by_pid) < _MOST_MOUNTED
        directory = place.take(job if is_kept_mounted else b"%d" % work["overlays"], work["overlays"])
        if is_kept_mounted and not directory.is_mounted:
            mount_stack(directory, work["stack"])
        return directory

    def _fork_into_pid_namespace(self) -> int:
        unshare(CloneFlag.NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:
                # Else the next child would land in the last one's namespace.
                setns(self._own_pid_namespace, CloneFlag.NEWPID)
        return pid

    def _remove(self, client: Client, name: str, keep: bool) -> None:  # noqa: FBT001
        sandbox = client.sandboxes.pop(name, None)
        if sandbox is not None:
            sandbox.keep = keep
            self._discard(sandbox)

    def _listen(self, client: Client) -> None:
        if self._listener is None:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            # By descriptor, as the path may be longer than the 108 bytes of unix(7).
            run = os.open(self._run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._listener.bind(f"/proc/self/fd/{run}/{SOCKET_NAME}")
            os.close(run)
            self._listener.listen()
            self._watch(self._listener.fileno(), self._accept)
        send(client.channel, ("listening",))

    def _accept(self) -> None:
        if self._listener is not None:
            client = Client(socket.socket(fileno=self._listener._accept()[0]))  # type: ignore[attr-defined]
            self._clients.add(client)
            self._watch_client(client)

    def _lose(self, client: Client) -> None:
        for one in list(self._clients) if client is self._first else [client]:
            self._clients.discard(one)
            self._unwatch(one.channel.fileno())
            one.channel.close()
            if one.pidfd != -1:
                self._unwatch(one.pidfd)
                os.close(one.pidfd)
            for sandbox in [*one.sandboxes.values(), *one.standby]:
                self._discard(sandbox)
            if self._networking is not None:
                self._networking.lose(one)

    def _discard(self, sandbox: Sandbox) -> None:
        sandbox.unwanted = True
        if sandbox.member is not None and self._networking is not None:
            # At once: who comes next may have the same address, and the same names.
            self._networking.networks.leave(sandbox.member)
        if sandbox.status is None:
            os.kill(sandbox.pid, signal.SIGKILL)
        else:
            self._forget(sandbox)

    def _reap(self, deaths: int) -> None:
        os.read(deaths, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            sandbox = self._by_pid.pop(pid, None)
            if sandbox is None:
                self._reaped_helper(pid)
            else:
                sandbox.status = status
                if self._networking is not None:
                    self._networking.end_forwarding(sandbox)
                if sandbox.unwanted:
                    self._forget(sandbox)

    def _reaped_helper(self, pid: int) -> None:
        if pid == self._watch_process.pid and self._clients:
            # Nothing in a sandbox could connect to anything any more.
            os.write(2, b"the process that watches the networks of this run has died\n")
            self._lose(self._first)
        if self._networking is not None:
            self._networking.reaped(pid)

    def _forget(self, sandbox: Sandbox) -> None:
        del self._sandboxes[sandbox.name]
        if sandbox.group is not None:
            sandbox.group.remove()
        if sandbox.member is not None:
            sandbox.member.close()
        if sandbox.member is not None and sandbox.member.has_joined:
            self._namespaces.retire(sandbox.member.namespace)
        elif sandbox.namespace is not None and sandbox.has_more_rights:
            self._namespaces.retire(sandbox.namespace)
        elif sandbox.namespace is not None:
            self._namespaces.give_back(sandbox.namespace)
        if sandbox.keep and sandbox.place is self._disk:
            # Out of the run's directory, which ends with the run.
            unmount(sandbox.directory)
            os.rename(sandbox.directory.path, kept_path(self._run, sandbox.name))
        else:
            sandbox.place.give_back(sandbox.directory)


def _can_hold_upper(directory: str) -> bool:
    """Whether a tmpfs there takes the attributes of overlayfs; without root that is so from Linux 6.6 on."""
    for name in ("trusted.overlay.probe", "user.overlay.probe"):
        try:
            os.setxattr(directory, name, b"y")
        except OSError:
            continue
        os.removexattr(directory, name)
        return True
    return False
