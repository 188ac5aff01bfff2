"""What an environment's commands find: the services beside them, and the sandbox that they run in.

One supervisor is for the whole of tox, and each environment is a client of its own, with whose end all that it has
started ends. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tox.tox_env.errors import Fail

from pytest_sandbox.tox import services as declared_services
from pytest_sandbox.tox.keys import blamed
from pytest_sandbox.tox.runner import SandboxRunner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tox.tox_env.runner import RunToxEnv

    from pytest_sandbox.tox.keys import Wanted
    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.live_network import LiveNetwork
    from pytest_sandbox_runtime.specs import Mount, SandboxSpec
    from pytest_sandbox_runtime.specs.service import Service

_LOGGER = logging.getLogger(__name__)


class Supervisor:
    """The one supervisor of this process, started when the first environment asks. Safe to use from several threads."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._starting = threading.Lock()

    def client(self, **words: Any) -> Engine:
        """Return an engine of its own for an environment; raises SandboxError."""
        from pytest_sandbox.cli.watching import watched
        from pytest_sandbox_runtime import Engine

        with self._starting:
            if self._engine is None:
                engine = Engine.open()
                # tox tells nobody of its end.
                atexit.register(engine.close)
                engine.listen()
                self._engine = engine
        return Engine.join(self._engine.run_directory, watched(quiet=True, report=_LOGGER.warning, **words))


def start(supervisor: Supervisor, env: RunToxEnv, wanted: Wanted | None, services: Sequence[Service]) -> ExitStack:
    """Start what the commands of ``env`` are to find; closing what is returned ends it. Raises SandboxError.

    ``wanted`` is None where they run on this machine itself.
    """
    with ExitStack() as undo, _interruptible(env, undo.enter_context(_client(supervisor, env, wanted))) as engine:
        network = _network(engine, wanted, services, undo)
        if services and network is not None:
            lives = declared_services.start(engine, services, network, undo)
            is_inside = wanted is not None and wanted.network != "host"
            env.conf["set_env"].update(declared_services.exported(lives, inside=is_inside))
        if wanted is not None and isinstance(env, SandboxRunner):
            with blamed(f"sandbox_image of environment {env.conf.name}"):
                # Made here, where it is missing.
                engine.images.config(wanted.image)
            joined = [] if network is None or wanted.network == "host" else [network]
            env.executor.sandbox = undo.enter_context(engine.create(_spec(env, wanted), joined))
            undo.callback(setattr, env.executor, "sandbox", None)
        return undo.pop_all()


@contextmanager
def _interruptible(env: RunToxEnv, engine: Engine) -> Iterator[Engine]:
    """Have an interrupt end ``engine``, and with it all that waits: tox itself interrupts nothing but commands."""
    from pytest_sandbox_runtime.errors import SandboxError

    interrupt, heard = env.interrupt, threading.Event()

    def end() -> None:
        heard.set()
        engine.close()
        interrupt()

    env.interrupt = end  # type: ignore[method-assign]
    try:
        yield engine
    except SandboxError as error:
        if heard.is_set():
            raise Fail("an interrupt") from error
        raise
    finally:
        del env.interrupt


def _client(supervisor: Supervisor, env: RunToxEnv, wanted: Wanted | None) -> Engine:
    if wanted is None:
        return supervisor.client()
    paths = [*_own_paths(env), sys.prefix, sys.base_prefix, *map(os.path.realpath, _temporary(env))]
    return supervisor.client(
        show=wanted.show, needed=tuple(dict.fromkeys(paths)), best_effort_limits=wanted.best_effort_limits
    )


def _network(engine: Engine, wanted: Wanted | None, services: Sequence[Service], undo: ExitStack) -> LiveNetwork | None:
    declared = None if wanted is None or isinstance(wanted.network, str) else wanted.network
    return undo.enter_context(engine.network(declared)) if services or declared is not None else None


def _spec(env: RunToxEnv, wanted: Wanted) -> SandboxSpec:
    from pytest_sandbox_runtime.specs import Mount, SandboxSpec

    own = os.path.realpath(env.env_dir)
    mounts = [Mount(source=own, target=own, read_only=False), *wanted.keep]
    if not wanted.image.is_host:
        mounts = [*_project_mounts(env), *mounts]
        # The home that tox passes on is one of this machine.
        env.conf["set_env"].update({"HOME": "/root"}, override=False)
    network = "host" if wanted.network == "host" else "none"
    return SandboxSpec(image=wanted.image, network=network, mounts=tuple(mounts), **wanted.limits)


def _project_mounts(env: RunToxEnv) -> list[Mount]:
    """Return what an image lacks: the project, of which it has a copy, and Python, unless that is where its own is."""
    from pytest_sandbox_runtime.specs import Mount

    *project, _, prefix = _own_paths(env)
    outer = [path for path in project if not any(path.startswith(f"{other}/") for other in project)]
    python = [] if prefix in ("/usr", "/usr/local") else [Mount(source=prefix, target=prefix)]
    return [*(Mount(source=path, target=path, copy=True) for path in dict.fromkeys(outer)), *python]


def _own_paths(env: RunToxEnv) -> list[str]:
    """Return where the project, the environment and the Python that it was made of are."""
    python = os.path.realpath(env.conf["env_python"])
    paths = [env.core["tox_root"], env.core["work_dir"], env.conf["change_dir"], env.env_dir, Path(python).parents[1]]
    return [os.path.realpath(path) for path in paths]


def _temporary(env: RunToxEnv) -> list[str]:
    directory = env.environment_variables.get("TMPDIR")
    return [directory] if directory else []
