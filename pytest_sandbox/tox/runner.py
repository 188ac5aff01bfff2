"""``runner = sandbox``: tox's own virtualenv, whose commands run in a sandbox. PYTEST_DONT_REWRITE."""

from __future__ import annotations

from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner

from pytest_sandbox.tox.execution import SandboxExecutor


class SandboxRunner(VirtualEnvRunner):
    """A virtualenv on this machine, made and filled as always; its commands run in a sandbox."""

    @staticmethod
    def id() -> str:
        return "sandbox"

    @property
    def executor(self) -> SandboxExecutor:
        if not isinstance(self._executor, SandboxExecutor):
            self._executor = SandboxExecutor(self.options.is_colored)
        return self._executor
