"""The tree of errors. Each names what was wanted and what happened; the hint, apart, says what to do.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_sandbox_runtime.specs import Outcome


class SandboxError(Exception):
    """Anything that this project says no to. ``hint`` says what to do about it, or is empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        Exception.__init__(self, message)  # others are bases too, with arguments of their own
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Callable[..., SandboxError], tuple[type[SandboxError], dict[str, object]]]:
        # xdist ships errors between processes, and no two of these have the same signature.
        return _rebuild, (type(self), self.__dict__.copy())


def _rebuild(kind: type[SandboxError], state: dict[str, object]) -> SandboxError:
    error = kind.__new__(kind)
    Exception.__init__(error, state.get("message"))
    for name, value in state.items():
        setattr(error, name, value)
    return error


class SpecError(SandboxError, ValueError):
    """A declaration that cannot be right, said where it is made."""


class ImageError(SandboxError):
    """An image that is none: missing, truncated, or with members that lead out of it."""


class DockerfileError(ImageError):
    """A Dockerfile that cannot be read: which file, which ``line`` (0 for the whole), which ``instruction``."""

    def __init__(self, message: str, *, path: str, line: int = 0, instruction: str = "", hint: str = "") -> None:
        place = f"{path}:{line}" if line else path
        super().__init__(": ".join(part for part in (place, instruction, message) if part), hint=hint)
        self.path = path
        self.line = line
        self.instruction = instruction


class ComposeError(SandboxError):
    """A compose file that cannot be used: which file, ``line`` and ``column`` (0 for the whole), and which ``key``.

    Several mistakes are one error: ``problems`` has each as one of its own, and the rest says where the first is.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        line: int = 0,
        column: int = 0,
        key: str = "",
        hint: str = "",
    ) -> None:
        place = f"{path}:{line}:{column}" if line else path
        super().__init__(": ".join(part for part in (place, key, message) if part), hint=hint)
        self.path = path
        self.line = line
        self.column = column
        self.key = key
        self._all: tuple[ComposeError, ...] = ()

    @classmethod
    def of(cls, errors: Sequence[ComposeError]) -> ComposeError:
        """Return all of ``errors``, of which there is at least one, as one; each keeps its own hint."""
        first = errors[0]
        if len(errors) == 1:
            return first
        error = cls("\n".join(map(str, errors)))
        error.path, error.line, error.column, error.key = first.path, first.line, first.column, first.key
        error._all = tuple(errors)
        return error

    @property
    def problems(self) -> tuple[ComposeError, ...]:
        """Each mistake."""
        return self._all or (self,)


class BuildError(ImageError):
    """A step of an image that could not be made; the message has the command and the last that it printed."""


class RegistryError(ImageError):
    """A registry that said no, or sent what it should not have; ``status`` is that of its answer, 0 without one."""

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class RegistryUnreachableError(RegistryError):
    """A registry that does not answer: no such host, nobody there, a wrong certificate, silence."""


class RegistryAuthError(RegistryError):
    """A registry that wants credentials, or other ones; which were tried is said, and never what they are."""


class RegistryNotFoundError(RegistryError):
    """A registry that has no such image."""


class OfflineError(ImageError):
    """Something that is not in the store, and may not be fetched."""


class UnsupportedError(SandboxError):
    """Something that was asked for and that this host cannot do."""


class EngineError(SandboxError):
    """The supervisor could not be started, or is gone."""


class StartError(SandboxError):
    """A sandbox that could not be made; ``code`` is the errno of what stopped it, 0 without one."""

    def __init__(self, message: str, *, hint: str = "", code: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class ServiceError(SandboxError):
    """A service that did not start, or was not ready in time: what it was waited for, how it is, what it said last."""


class SandboxClosedError(SandboxError):
    """A sandbox, or its engine, that was used after its end."""


class FileAccessError(SandboxError, OSError):
    """A file in a sandbox, or of a capture, that could not be used; ``errno`` and ``filename`` as in OSError."""

    def __init__(self, message: str, *, errno: int = 0, filename: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno
        self.filename = filename

    __str__ = SandboxError.__str__

    def __reduce__(self) -> tuple[Callable[..., SandboxError], tuple[type[SandboxError], dict[str, object]]]:
        # OSError keeps these two where __dict__ does not show them.
        return _rebuild, (type(self), {**self.__dict__, "errno": self.errno, "filename": self.filename})


class CommandNotFoundError(SandboxError, FileNotFoundError):
    """There is no such program in the sandbox."""

    __str__ = SandboxError.__str__
    __reduce__ = SandboxError.__reduce__


class CommandError(SandboxError):
    """A command that could not be started for a reason other than a missing program."""


class CommandFailedError(SandboxError, subprocess.CalledProcessError):
    """``check=True``, and the command ended with something other than 0."""

    def __init__(self, outcome: Outcome) -> None:
        SandboxError.__init__(self, f"{outcome}\n{outcome.tail()}".rstrip())
        self.outcome = outcome
        self.returncode, self.cmd = outcome.returncode, outcome.args
        self.output, self.stderr = outcome.stdout, outcome.stderr

    __str__ = SandboxError.__str__
    __reduce__ = SandboxError.__reduce__


class CommandTimeoutError(SandboxError, subprocess.TimeoutExpired):
    """A command that had not ended in time and was killed with its process group; ``outcome`` has what it printed."""

    def __init__(self, outcome: Outcome, timeout: float) -> None:
        SandboxError.__init__(self, f"{outcome.command()} did not end within {timeout:g} s\n{outcome.tail()}".rstrip())
        self.outcome = outcome
        self.cmd, self.timeout = outcome.args, timeout
        self.output, self.stderr = outcome.stdout, outcome.stderr

    __str__ = SandboxError.__str__
    __reduce__ = SandboxError.__reduce__
