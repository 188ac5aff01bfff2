"""PYTEST_DONT_REWRITE. The live handle of a sandbox: what a test drives.

What few tests use is imported when it is used.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

from pytest_sandbox_runtime.accounts import Account, find_account, home_of
from pytest_sandbox_runtime.cgroups import read_stats
from pytest_sandbox_runtime.command import (
    PATH,
    argv_of,
    check_file,
    decoded,
    input_of,
    open_streams,
    shown,
    start_error,
)
from pytest_sandbox_runtime.entering import WayIn
from pytest_sandbox_runtime.errors import (
    CommandFailedError,
    CommandTimeoutError,
    SpecError,
)
from pytest_sandbox_runtime.process import PIPE, Process
from pytest_sandbox_runtime.reachable import Reachable
from pytest_sandbox_runtime.specs.sandbox import is_copied

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from pytest_sandbox_runtime.cgroups import OomWatch, Stats
    from pytest_sandbox_runtime.changes import Changes
    from pytest_sandbox_runtime.reachable import Started
    from pytest_sandbox_runtime.specs import Image, Outcome, SandboxSpec
    from pytest_sandbox_runtime.specs.ready import Ready
    from pytest_sandbox_runtime.terminal import Terminal

_LOG_LINES = 40
_WINDOW = (24, 80)
# What a machine has anew at each of its starts, so that it is no change of it.
_VOLATILE = ("/dev", "/run")


class Sandbox(Reachable):
    """A sandbox that has started: only an Engine makes one, so no method asks whether it runs yet.

    Safe to use from several threads. Every method raises SandboxClosedError after ``close``.
    """

    def __init__(self, spec: SandboxSpec, started: Started, undo: ExitStack) -> None:
        super().__init__(spec, started)
        self._commands: list[str] = []
        self.account = self._find_account(spec.user)
        self._home = "/root" if started.uid == 0 else home_of(started.uid)
        if spec.workdir is not None and not self._files.is_dir(spec.workdir):
            raise SpecError(
                f"workdir {spec.workdir} is no directory in {spec.image}", hint="make it in the image first"
            )
        # Last: what failed above is undone by who called, and this handle never was.
        self._undo = undo.pop_all()

    def __repr__(self) -> str:
        state = "closed" if self._undo is None else f"pid={self.pid}"
        return f"<Sandbox {self.name} of {self.spec.image} {state}>"

    def close(self) -> None:
        """Kill all that runs in the sandbox and forget its files. Again: nothing.

        Its end is waited for where somebody else could notice what still runs: with a mount that it may write to, or
        the host's network. Else the kernel takes it apart while the caller goes on.
        """
        super().close()

    def keep(self, about: str = "") -> str:
        """Have the changed files kept on disk when the sandbox is closed; returns the directory that will hold them.

        Its ``upper0`` holds what changed in "/", as overlayfs writes it; ``about`` says later what it was. Raises
        UnsupportedError where they cannot be kept.
        """
        self._check_open()
        return self._started.keep(about)

    @property
    def pid(self) -> int:
        """The pid of the sandbox's init, as this process sees it."""
        self._check_open()
        # In bytes, as the codecs may have gone already when a sandbox that was never closed is to be named.
        with open(f"/proc/self/fdinfo/{self._started.pidfd}", "rb") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(b"Pid:"))

    # Commands

    def run(
        self,
        args: Sequence[str | os.PathLike[str]] | str,
        *,
        input: bytes | str | IO[Any] | None = None,  # noqa: A002
        text: bool = True,
        stdout: int | IO[Any] = PIPE,
        stderr: int | IO[Any] = PIPE,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | int | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> Outcome:
        """Run a command to its end: a list is an argv, a string goes to ``/bin/sh -c``.

        Output is text (UTF-8, with surrogateescape, so nothing is lost) or, with ``text=False``, bytes. After
        ``timeout`` seconds (the spec's, where none is given) its process group is killed and CommandTimeoutError
        raised, with what was printed; with ``check`` an exit status other than 0 raises CommandFailedError.
        """
        data, stdin = input_of(input)
        timeout = self.spec.timeout if timeout is None else timeout
        process = self.popen(args, stdin=stdin, stdout=stdout, stderr=stderr, env=env, workdir=workdir, user=user)
        try:
            out, err = process.communicate(data, timeout)
        except CommandTimeoutError as error:
            killed = process.outcome(
                *(decoded(part, text=text) for part in (error.outcome.stdout, error.outcome.stderr))
            )
            self._record(killed)
            raise CommandTimeoutError(killed, error.timeout) from None
        finally:
            process.close()
        outcome = process.outcome(decoded(out, text=text), decoded(err, text=text))
        self._record(outcome)
        if check and outcome.returncode != 0:
            raise CommandFailedError(outcome)
        return outcome

    def popen(
        self,
        args: Sequence[str | os.PathLike[str]] | str,
        *,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] = PIPE,
        stderr: int | IO[Any] = PIPE,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | int | None = None,
        restart: tuple[bool, int] | None = None,
        tty: bool = False,
    ) -> Process:
        """Start a command and return at once. PIPE, DEVNULL and STDOUT are subprocess's; stdin is DEVNULL if left out.

        With ``tty`` all three are a terminal of its own that nobody types on, and what is printed there goes to
        ``stdout``, which has to be a file on disk.
        ``restart`` has it start again when it has ended: always, or where that is False only when it has failed; and
        how many times at most, -1 for any number. Raises CommandNotFoundError where there is no such program,
        CommandError where it cannot be started.
        """
        with ExitStack() as undo:
            ours, theirs = open_streams(stdin, stdout, stderr, undo)
            if tty:
                check_file(theirs[1])
                env = {"TERM": "xterm", **(env or {})}
            window = _WINDOW if tty else None
            reply, pid, _ = self._start(args, env, workdir, user, window, theirs, undo, restart)
            process = Process(shown(args), pid, reply, ours, self.signal_process, self._started.oom)
            # Ours live on in the process; theirs are closed here, so that an end of file can arrive.
            undo.pop_all()
            for fd in theirs:
                os.close(fd)
        return process

    def pty(
        self,
        args: Sequence[str | os.PathLike[str]] | str = ("/bin/sh",),
        *,
        rows: int = 24,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | int | None = None,
    ) -> Terminal:
        """Start a command on a terminal of its own and return the terminal's other side: see pty(7)."""
        from pytest_sandbox_runtime.terminal import Terminal

        with ExitStack() as undo:
            env = {"TERM": "xterm", **(env or {})}
            reply, pid, fds = self._start(args, env, workdir, user, (rows, columns), (), undo)
            process = Process(shown(args), pid, reply, (None, None, None), self.signal_process, self._started.oom)
            undo.pop_all()
        return Terminal(fds[0], process)

    def shell(self, args: Sequence[str] | str | None = None, **options: Any) -> int:
        """Join this process's terminal to a shell in the sandbox; returns its return code when it ends."""
        from pytest_sandbox_runtime.terminal import interact, shell_of

        args = shell_of(self.files.exists) if args is None else args
        env = {"TERM": os.environ.get("TERM", "xterm"), **(options.pop("env", None) or {})}
        with self.pty(args, env=env, **options) as terminal:
            return interact(terminal)

    def _start(
        self,
        args: Sequence[str | os.PathLike[str]] | str,
        env: Mapping[str, str] | None,
        workdir: str | None,
        user: str | int | None,
        window: tuple[int, int] | None,
        streams: tuple[int, ...],
        undo: ExitStack,
        restart: tuple[bool, int] | None = None,
    ) -> tuple[socket.socket, int, list[int]]:
        argv = argv_of(args)
        account = self.account if user is None else self._find_account(user)
        workdir = workdir or self.spec.workdir or "/"
        who = None if account is None else (account.uid, account.gid, list(account.groups))
        command = (argv, self._environment(account, env), os.fsencode(workdir), who, window, restart)
        self._check_open()
        reply, ((word, *operands), fds) = self._started.control.start(command, streams)
        undo.callback(reply.close)
        if word == "failed":
            raise start_error(args, argv, workdir, *operands)
        return reply, int(operands[0]), fds

    def _environment(self, account: Account | None, env: Mapping[str, str] | None) -> dict[bytes, bytes]:
        home = self._home if account is None else account.home
        fixed = {"PATH": PATH, "HOME": home, "LANG": "C.UTF-8", "TZ": "UTC", **self._own_env}
        variables = {**fixed, **dict(self.spec.env), **(env or {})}
        return {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}

    def _find_account(self, user: str | int | None) -> Account | None:
        if user is None or (str(user) in ("root", "0") and self._started.uid == 0):
            return None
        account = find_account(self._files, user)
        return None if account.uid == self._started.uid and ":" not in str(user) else account

    def signal_process(self, pid: int, number: int, *, group: bool) -> None:
        """Send a signal to a command, or to its process group."""
        self._check_open()
        self._started.control.signal(pid, number, group=group)

    def kill_all(self) -> None:
        """Kill every process in the sandbox but its init, and wait until all are dead."""
        self._check_open()
        self._started.control.kill_all()

    # Files

    def read_text(self, path: str, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the text of a file; every path in a sandbox is absolute."""
        return self.files.read_text(path, encoding, errors)

    def read_bytes(self, path: str) -> bytes:
        """Return the content of a file."""
        return self.files.read_bytes(path)

    def write_text(self, path: str, text: str, encoding: str = "utf-8") -> int:
        """Write ``text`` to a file, making or truncating it; returns the bytes written."""
        return self.files.write_text(path, text, encoding)

    def write_bytes(self, path: str, data: bytes) -> int:
        """Write ``data`` to a file, making or truncating it; returns the bytes written."""
        return self.files.write_bytes(path, data)

    def put(self, source: str | os.PathLike[str], target: str) -> None:
        """Copy a file or tree of the host to ``target``, as ``cp -a`` does."""
        self.files.put(source, target)

    def get(self, source: str, target: str | os.PathLike[str]) -> None:
        """Copy a file or tree of the sandbox to ``target`` on the host, as ``cp -a`` does; no link is followed out."""
        self.files.get(source, target)

    @property
    def upper(self) -> str:
        """The upper directory of "/", as this process can reach it: what was written, as overlayfs writes it."""
        self._check_open()
        return f"{self._started.seen(self._started.directory)}/{self._started.tree.overlays[0].upper}"

    def changes(self) -> Changes:
        """Return what was added, modified and deleted since the start; /proc, /sys, /dev and /run do not count."""
        from pytest_sandbox_runtime.changes import read_changes

        self._check_open()
        seen = self._started.seen
        directory = seen(self._started.directory)
        overlays = [
            (one.prefix, f"{directory}/{one.upper}", [seen(lower) for lower in one.lowers])
            for one in self._started.tree.overlays
        ]
        mounted = (mount.target for mount in self.spec.mounts if not is_copied(mount))
        return read_changes(overlays).without(*_VOLATILE, *mounted)

    def commit(self) -> Image:
        """Return an image of what the sandbox's files are now, a layer over its own; what runs in it goes on.

        Files that are written meanwhile are as they were at some moment: stop what writes them first. Raises
        ImageError for a copy of this machine.
        """
        return self._started.commit(self.upper)

    def fork(self) -> Sandbox:
        """Return a second sandbox like this one, whose files start as they are here now: see ``commit``."""
        return self._started.again(self.commit())

    def wait_for(self, what: Ready, timeout: float = 5) -> None:
        """Wait until what ``ready`` names has come about: ``ready.port(80)``. ServiceError after ``timeout`` seconds.

        Of a service, whose end and whose log count too, that is for LiveService.wait.
        """
        from pytest_sandbox_runtime.services.readiness import Readiness

        Readiness(self).wait(what, timeout, f"sandbox {self.name}")

    # What it uses, what it did

    def stats(self) -> Stats:
        """Return memory in bytes, processor time in seconds and the number of processes, in use now.

        From the sandbox's control groups where its spec has limits; else summed over its processes, without peaks.
        """
        self._check_open()
        if self._started.cgroup_paths:
            return read_stats(self._started.cgroup_paths)
        from pytest_sandbox_runtime.usage import sum_processes

        return sum_processes(self._started.root)

    def was_oom_killed(self) -> bool:
        """Whether the kernel has killed something in the sandbox, out of memory, since this was last asked."""
        return self._started.oom.has_killed()

    def logs(self) -> str:
        """Return what ``run`` did so far: each command, the last lines it printed, and how it ended."""
        return "\n".join(self._commands)

    def _record(self, outcome: Outcome) -> None:
        tail = outcome.tail(_LOG_LINES)
        self._commands.append("\n".join(part for part in (f"$ {outcome.command()}", tail, f"# {outcome}") if part))

    # Sharing, with other clients of the run

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """Those of its control socket, its init and its root, by which others can use it, too."""
        self._check_open()
        return self._started.control.fileno(), self._started.pidfd, self._started.root

    def told(self) -> dict[str, Any]:
        """Return the values that others need beside ``descriptors``: see services.sharing."""
        started = self._started
        names = ("name", "directory", "tree", "uid", "cgroup_paths", "namespaces")
        addresses = [addresses for _, addresses in self.joins]
        return {"spec": self.spec, "addresses": addresses, **{name: getattr(started, name) for name in names}}

    @property
    def oom(self) -> OomWatch:
        return self._started.oom

    # Entering, for tests that run inside

    def way_in(self) -> WayIn:
        """Return what a process that is to go on in here has to do: see entering.fork_into."""
        account = None if self.account is None else (self.account.uid, self.account.gid, self.account.groups)
        heard = None if self.spec.network == "host" else self.name
        spec, started = self.spec, self._started
        return WayIn(heard, int(started.namespaces), started.cgroup_paths, spec.env, account, spec.nesting)

    @property
    def watch(self) -> int:
        """A descriptor at which that process tells how it is heard."""
        return self._started.connection.watch

    def let_go(self) -> None:
        """Forget the sandbox without ending it: it belongs to the process that this one is a fork of."""
        if self._undo is not None:
            self._undo.pop_all()
            self._undo = None
            for capture in self._captures:
                capture.let_go()
            self._started.control.close()
            self._started.listeners.close()
            os.close(self._started.pidfd)
            os.close(self._started.root)
