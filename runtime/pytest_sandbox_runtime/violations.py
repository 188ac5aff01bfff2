"""PYTEST_DONT_REWRITE. What sandboxes were refused by their networks, as the watch of the run writes it down."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pytest_sandbox_runtime.network.names import HOST_GATEWAY
from pytest_sandbox_runtime.network.watch import LOG_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator


class Violation(NamedTuple):
    """A connection that was refused, or, where ``port`` is 0, a look-up.

    ``program`` is its command line, cut after 200 characters, "" where it is not known and "the test" for the process
    that asks; ``name`` is an address where the program said no name, and "host-gateway" for that of its network.
    """

    sandbox: str
    program: str
    name: str
    port: int

    def __str__(self) -> str:
        what = f"connected to {self.name} port {self.port}" if self.port else f"looked up {self.name}"
        return f"{self.program or 'a program'} in sandbox {self.sandbox} {what}, and was refused"

    @property
    def remedy(self) -> str:
        """The words that would allow it."""
        if self.name == HOST_GATEWAY:
            return f'network.expose("{HOST_GATEWAY}", {self.port}), for a server of the test'
        if self._is_address:
            return "network=Network(internet=True)"
        return f'network=Network(allow=["{self.name}:{self.port or 443}"])'

    @property
    def _is_address(self) -> bool:
        return ":" in self.name or self.name.replace(".", "").isdecimal()


class Violations:
    """Those of the sandboxes that a client of a run has made, in the run's directory."""

    def __init__(self, run: str) -> None:
        self._path = os.path.join(run, LOG_NAME)
        self._read = 0
        self._own: set[str] = set()
        self._ended: set[str] = set()

    def expect(self, sandbox: str) -> None:
        """Take ``sandbox`` for one of this client's."""
        self._own.add(sandbox)

    def forget(self, sandbox: str) -> None:
        """Take note that ``sandbox`` has ended: after those that ``new`` returns next no others will come of it."""
        self._ended.add(sandbox)

    def new(self) -> list[Violation]:
        """Return those that were not returned yet, each once."""
        ended, self._ended = self._ended, set()
        found = dict.fromkeys(violation for violation in self._lines() if violation.sandbox in self._own)
        self._own -= ended
        return list(found)

    def _lines(self) -> Iterator[Violation]:
        try:
            size = os.path.getsize(self._path)
        except FileNotFoundError:
            # The run has ended before this client of it.
            return
        if size == self._read:
            return
        from pytest_sandbox_runtime.network.hearing import program_of

        test = program_of(os.getpid())
        with open(self._path, "rb") as file:
            file.seek(self._read)
            for line in file:
                self._read += len(line)
                sandbox, name, port, program = line.decode().rstrip("\n").split("\t", 3)
                yield Violation(sandbox, "the test" if program == test else program, name, int(port))
