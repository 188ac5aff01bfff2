"""How tox runs a command in a sandbox: started there, and heard, waited for and interrupted as its own are.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import errno
import fnmatch
import logging
import os
import shutil
import signal
import threading
from contextlib import ExitStack, suppress
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING

from tox.execute.api import ExecuteStatus
from tox.execute.local_sub_process import LocalSubProcessExecuteInstance, LocalSubProcessExecutor
from tox.execute.local_sub_process.read_via_thread_unix import ReadViaThreadUnix
from tox.execute.request import StdinSource
from tox.tox_env.errors import Fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tox.execute.api import ExecuteInstance, ExecuteOptions
    from tox.execute.request import ExecuteRequest
    from tox.execute.stream import SyncWrite

    from pytest_sandbox_runtime.process import Process
    from pytest_sandbox_runtime.sandbox import Sandbox

_STDIN = {StdinSource.USER: 0, StdinSource.OFF: None, StdinSource.API: -1}
# What a shell says of a program that it cannot start.
_NOT_STARTED = 126


class SandboxExecutor(LocalSubProcessExecutor):
    """Runs commands in ``sandbox`` while there is one, and as tox does before and after: those that install."""

    def __init__(self, colored: bool) -> None:  # noqa: FBT001  tox's own
        super().__init__(colored)
        self.sandbox: Sandbox | None = None

    def build_instance(
        self, request: ExecuteRequest, options: ExecuteOptions, out: SyncWrite, err: SyncWrite
    ) -> ExecuteInstance:
        if self.sandbox is None:
            return super().build_instance(request, options, out, err)
        return SandboxExecuteInstance(self.sandbox, request, options, out, err)


class SandboxExecuteInstance(LocalSubProcessExecuteInstance):
    """A command that is to run in a sandbox."""

    def __init__(
        self, sandbox: Sandbox, request: ExecuteRequest, options: ExecuteOptions, out: SyncWrite, err: SyncWrite
    ) -> None:
        super().__init__(request, options, out, err)
        self._sandbox = sandbox
        self._undo = ExitStack()

    def __enter__(self) -> ExecuteStatus:
        from pytest_sandbox_runtime.errors import CommandError, CommandNotFoundError

        size = shutil.get_terminal_size(fallback=(-1, -1))
        for name, value in (("COLUMNS", size.columns), ("LINES", size.lines)):
            if value != -1:
                self.request.env.setdefault(name, str(value))
        try:
            return self._start()
        except CommandNotFoundError:
            error: Exception = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.cmd[0])
        except CommandError as refused:
            error = refused
        logging.error("Exception running subprocess %s", error)  # noqa: LOG015  where and how tox says it
        return CommandNotStarted(self.options, self._out, self._err, error)

    def _start(self) -> ExecuteStatus:
        with ExitStack() as undo:
            outputs = [self.get_stream_file_no(name) for name in ("stdout", "stderr")]
            for output in outputs:
                undo.callback(output.close)
            is_captured = self._is_captured()
            out, err = (next(output) for output in outputs) if is_captured else (1, 2)
            process = self._sandbox.popen(
                self.cmd,
                stdin=_STDIN[self.request.stdin],
                stdout=out,
                stderr=err,
                env=self.request.env,
                workdir=str(self.request.cwd),
            )
            status = SandboxExecuteStatus(self.options, self._out, self._err, self._sandbox, process)
            undo.callback(status.close)
            if is_captured:
                for output, handler in zip(outputs, (self.out_handler, self.err_handler)):  # noqa: B905  two of each
                    # As to whoever started it, tox's own reader asks for no more than the descriptor.
                    descriptor = output.send(process)  # type: ignore[arg-type]
                    undo.enter_context(ReadViaThreadUnix(descriptor, handler, f"sandbox-{process.pid}", drain=True))
            self._undo = undo.pop_all()
        return status

    def _is_captured(self) -> bool:
        # tox has had the two since 4.56.
        is_told = getattr(self.request, "capture", False) or self.request.stdin is StdinSource.API
        return is_told or not getattr(self.options, "no_capture", False)

    def __exit__(self, *exc_info: object) -> None:
        self._undo.close()

    @property
    def cmd(self) -> Sequence[str]:
        """What is to be run; raises Fail where it is neither the environment's nor allowed."""
        return super().cmd if self._sandbox.spec.image.is_host else self._cmd_of_image()

    def _cmd_of_image(self) -> Sequence[str]:
        base, *arguments = self.request.cmd
        folders = [""] if os.sep in base else self.request.env["PATH"].split(os.pathsep)
        paths = [os.path.join(self.request.cwd, folder, base) for folder in folders]
        path = next(filter(self._sandbox.files.exists, paths), None)
        if path is None:
            return self.request.cmd
        if self.request.allow is not None and not any(
            fnmatch.fnmatch(name, pattern) for name in (base, path) for pattern in self.request.allow
        ):
            raise Fail(f"{base} (resolves to {path}) is not allowed, use allowlist_externals to allow it")
        return [path, *arguments]


class SandboxExecuteStatus(ExecuteStatus):
    """A command that runs in a sandbox."""

    def __init__(
        self, options: ExecuteOptions, out: SyncWrite, err: SyncWrite, sandbox: Sandbox, process: Process
    ) -> None:
        super().__init__(options, out, err)
        self._sandbox = sandbox
        self._process = process
        # Who interrupts is in another thread than who waits, and only one of them can hear of the end.
        self._hearing = threading.Lock()

    @property
    def exit_code(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        if self._process.returncode is None and self._hearing.acquire(timeout=-1 if timeout is None else timeout):
            try:
                self._process.wait(timeout)
            except TimeoutExpired:
                return None
            finally:
                self._hearing.release()
        return self._process.returncode

    def write_stdin(self, content: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(content.encode())

    def interrupt(self) -> None:
        """Let the command, and all in its process group, end by SIGINT, SIGTERM or SIGKILL, as its time is over."""
        options = self.options
        told = f"process {self._process.pid} of sandbox {self._sandbox.name}"
        logging.warning("requested interrupt of %s, activate in %.2f", told, options.suicide_timeout)  # noqa: LOG015
        if self.wait(options.suicide_timeout) is not None:
            return
        for number, patience in (
            (signal.SIGINT, options.interrupt_timeout),
            (signal.SIGTERM, options.terminate_timeout),
            (signal.SIGKILL, None),
        ):
            logging.warning("send signal %s(%d) to %s", number.name, number, told)  # noqa: LOG015
            self._signal(number)
            if self.wait(patience) is not None:
                break
        logging.warning("interrupt finished with success")  # noqa: LOG015

    def _signal(self, number: int) -> None:
        from pytest_sandbox_runtime.errors import SandboxClosedError

        with suppress(SandboxClosedError):
            self._sandbox.signal_process(self._process.pid, number, group=True)

    def close(self) -> None:
        """Kill the command if it still runs, and close its pipes."""
        if self.exit_code is None:
            self._signal(signal.SIGKILL)
            self.wait()
        self._process.close()
        if self._process.oom_killed:
            logging.error("the command was killed: out of memory")  # noqa: LOG015


class CommandNotStarted(ExecuteStatus):
    """A command that could not be started."""

    def __init__(self, options: ExecuteOptions, out: SyncWrite, err: SyncWrite, error: Exception) -> None:
        super().__init__(options, out, err)
        self._error = error

    @property
    def exit_code(self) -> int:
        return errno.ENOENT if isinstance(self._error, FileNotFoundError) else _NOT_STARTED

    @property
    def start_error(self) -> Exception:
        return self._error

    def wait(self, timeout: float | None = None) -> int:  # noqa: ARG002  there is nothing to wait for
        return self.exit_code

    def write_stdin(self, content: str) -> None:
        """Do nothing."""

    def interrupt(self) -> None:
        """Do nothing."""
