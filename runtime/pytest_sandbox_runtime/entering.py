"""PYTEST_DONT_REWRITE. A fork of this very process, with all that it has in memory, inside a sandbox."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.supervisor.confinement import confine, seccomp_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.sandbox import Sandbox


def fork_into(sandbox: Sandbox, directory: str, on_end: Callable[[int | str], None]) -> int:
    """Fork, and let the child go on inside ``sandbox``, in ``directory``: returns 0 there, and its guard's pid here.

    Joining a pid namespace concerns the next child only, so there are two forks: between this process and the one
    inside stands a guard, which waits for the one inside, tells ``on_end`` its return code, and ends. What keeps the
    child from entering is told ``on_end`` as a sentence.
    """
    program = seccomp_program()
    with warnings.catch_warnings():
        # Other threads do not live on in a fork; pytest-xdist's are idle while a test runs.
        warnings.simplefilter("ignore", DeprecationWarning)
        guard = os.fork()
        if guard != 0:
            return guard
        try:
            sandbox.join()
            inside = os.fork()
            if inside == 0:
                _settle(sandbox, directory, program)
                return 0
            on_end(os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1]))
        except BaseException as error:
            on_end(f"the test could not enter its sandbox: {error}")
    os._exit(0)


def _settle(sandbox: Sandbox, directory: str, program: bytes) -> None:
    os.chdir(directory)
    os.environ.update(sandbox.spec.env)
    if sandbox.account is not None:
        sandbox.account.become()
    confine(program, keep_permitted=False)
