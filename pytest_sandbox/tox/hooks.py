"""tox's hooks: each calls a module, and nothing is started before an environment needs it. PYTEST_DONT_REWRITE."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tox.plugin import impl
from tox.tox_env.errors import Fail
from tox.tox_env.runner import RunToxEnv

from pytest_sandbox.tox import keys, machines, services
from pytest_sandbox.tox.runner import SandboxRunner

if TYPE_CHECKING:
    from contextlib import ExitStack

    from tox.config.main import Config
    from tox.config.sets import ConfigSet, EnvConfigSet
    from tox.session.state import State
    from tox.tox_env.api import ToxEnv
    from tox.tox_env.register import ToxEnvRegister

    from pytest_sandbox_runtime.specs.service import Service


class Hooks:
    """The plugin, and what it has started."""

    def __init__(self) -> None:
        self._conf: Config | None = None
        self._supervisor = machines.Supervisor()
        self._started: dict[ToxEnv, ExitStack] = {}

    @impl
    def tox_register_tox_env(self, register: ToxEnvRegister) -> None:
        register.add_run_env(SandboxRunner)

    @impl
    def tox_add_core_config(self, core_conf: ConfigSet, state: State) -> None:
        self._conf = state.conf
        # In TOML the services' tables are a key of the core's.
        names = partial(services.declared, state.conf)
        core_conf.add_constant(services.PREFIX, "the services that are declared", names)

    @impl
    def tox_add_env_config(self, env_conf: EnvConfigSet) -> None:
        keys.add_keys(env_conf)

    @impl
    def tox_on_install(self, tox_env: ToxEnv) -> None:
        """Refuse what is wrong before anything is installed."""
        self._read(tox_env)

    @impl
    def tox_before_run_commands(self, tox_env: ToxEnv) -> None:
        if not isinstance(tox_env, RunToxEnv):
            return
        wanted, wanted_services = self._read(tox_env)
        if wanted is not None or wanted_services:
            self._started[tox_env] = self._start(tox_env, wanted, wanted_services)

    @impl
    def tox_env_teardown(self, tox_env: ToxEnv) -> None:
        started = self._started.pop(tox_env, None)
        if started is not None:
            started.close()

    def _start(self, tox_env: RunToxEnv, wanted: keys.Wanted | None, wanted_services: list[Service]) -> ExitStack:
        from pytest_sandbox_runtime.errors import SandboxError

        try:
            return machines.start(self._supervisor, tox_env, wanted, wanted_services)
        except SandboxError as error:
            raise Fail(f"environment {tox_env.conf.name}: {error}") from error

    def _read(self, tox_env: ToxEnv) -> tuple[keys.Wanted | None, list[Service]]:
        """Return what an environment's commands are to run in, if that is a sandbox, and its services; raises Fail."""
        conf = tox_env.conf
        if not isinstance(tox_env, RunToxEnv) or self._conf is None:
            return None, []
        is_sandboxed = isinstance(tox_env, SandboxRunner)
        keys.check_keys(conf, is_sandboxed=is_sandboxed)
        names = keys.services_of(conf)
        asked = f"{keys.SERVICES} of environment {conf.name}"
        declared = [services.read(self._conf, name, asked) for name in names]
        return keys.wanted_of(conf, str(tox_env.core["tox_root"])) if is_sandboxed else None, declared


HOOKS = Hooks()
