"""Services that an environment of tox names, as [sandbox:NAME] declares them. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import importlib
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Dict, List  # noqa: UP035  see keys

from tox.config.loader.section import Section
from tox.config.sets import ConfigSet
from tox.config.types import Command
from tox.tox_env.errors import Fail

from pytest_sandbox.image_words import image_named, path_of
from pytest_sandbox.tox.keys import blamed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from tox.config.main import Config

    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.live_network import LiveNetwork
    from pytest_sandbox_runtime.services.live_service import LiveService
    from pytest_sandbox_runtime.specs.ready import Ready
    from pytest_sandbox_runtime.specs.service import Service

PREFIX = "sandbox"
_STRINGS, _NUMBERS = Dict[str, str], List[int]  # noqa: UP006
# sys.path is the whole process's, and environments run in threads.
_IMPORTING = threading.Lock()


class ServiceSection(ConfigSet):
    """The keys of a service."""

    def register_config(self) -> None:
        for name, of_type, default, description in (
            ("image", str, "", "what it runs in, in the words of sandbox_image"),
            ("service", str, "", "one of pytest_sandbox.services, or package.module:name of one in Python"),
            ("command", Command, None, "what it runs, where that is not its image's"),
            ("environment", _STRINGS, {}, "its variables"),
            ("ports", _NUMBERS, [], "the ports that it listens at"),
            ("ready", str, "", "when it is: port:NUMBER, log:PATTERN, or http:PATH; without it, when it listens"),
            ("timeout", float, None, "how many seconds it may take to be ready"),
        ):
            self.add_config(name, of_type, default, description)


def declared(conf: Config) -> list[str]:
    """Return the names of all services that the configuration has."""
    names = [section.name for section in conf.sections() if section.prefix == PREFIX]
    for loader in conf.core.loaders:
        try:
            table = loader.load_raw(PREFIX, None, None)
        except KeyError:
            continue
        names += table if isinstance(table, dict) else []
    return names


def read(conf: Config, name: str, asked: str) -> Service:
    """Return the service ``name`` as its section declares it; raises Fail. ``asked`` is what wants it."""
    from pytest_sandbox_runtime.suggestions import did_you_mean

    section = Section(PREFIX, name)
    said = conf.get_section_config(section, base=None, of_type=ServiceSection, for_env=None)
    if not said.loaders:
        known = declared(conf)
        hint = did_you_mean(name, known, f"there are {', '.join(known)}" if known else f"declare it in [{section.key}]")
        raise Fail(f"{asked}: no section declares a service {name!r}\n  hint: {hint}")
    for key in said.unused():
        hint = did_you_mean(key, said, f"there are {', '.join(said)}")
        raise Fail(f"{key} of [{section.key}] is no key\n  hint: {hint}")
    values: dict[str, Any] = {}
    for key in said:
        with blamed(f"{key} of [{section.key}]"):
            values[key] = said[key]
    with blamed(f"[{section.key}]"):
        return _declare(values, name, str(conf.core["tox_root"]))


def _declare(said: dict[str, Any], name: str, root: str) -> Service:
    from pytest_sandbox_runtime.specs.service import Service

    words: dict[str, Any] = {"name": name}
    if said["image"]:
        words["image"] = image_named(path_of(said["image"], root) or said["image"])
    if said["command"] is not None:
        words["command"] = _argv(said["command"].args)
    if said["ready"]:
        words["ready"] = _ready(said["ready"])
    words.update({key: said[key] for key in ("ports", "timeout") if said[key]})
    if not said["service"]:
        if "image" not in words:
            raise ValueError("it has neither an image nor a service")
        return Service(env=said["environment"], **words)
    made = _find(said["service"], root)
    if not isinstance(made, Service):
        made = made(**{key: words.pop(key) for key in ("name", "image") if key in words})
    if not isinstance(made, Service):
        raise TypeError(f"{said['service']} returns {made!r}, which is no Service")
    return replace(made, **words).with_env(**said["environment"])


def _argv(args: Any) -> tuple[str, ...]:
    if not isinstance(args, list):
        raise TypeError(f"command = {args!r} is no list")
    return tuple(args)


def _ready(words: str) -> Ready:
    from pytest_sandbox_runtime.specs import ready

    kind, _, operand = words.partition(":")
    if kind == "port" and operand.isdecimal():
        return ready.port(int(operand))
    if kind == "log" and operand:
        return ready.log(operand.strip())
    if kind == "http":
        return ready.http(operand)
    raise ValueError(f"ready = {words} is none of port:NUMBER, log:PATTERN and http:PATH")


def _find(words: str, root: str) -> Any:
    from pytest_sandbox import services
    from pytest_sandbox_runtime.specs.service import Service
    from pytest_sandbox_runtime.suggestions import did_you_mean

    module, colon, attribute = words.partition(":")
    if not colon:
        if words not in services.__all__:
            hint = did_you_mean(words, services.__all__, f"there are {', '.join(services.__all__)}")
            raise ValueError(f"service = {words} is none that pytest_sandbox.services has\n  hint: {hint}")
        return getattr(services, words)
    with _IMPORTING:
        sys.path.insert(0, root)
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"service = {words}: {error}") from error
        finally:
            sys.path.remove(root)
    if not callable(found) and not isinstance(found, Service):
        raise TypeError(f"service = {words} is neither a Service nor a function that returns one")
    return found


def start(engine: Engine, services: Sequence[Service], network: LiveNetwork, undo: ExitStack) -> list[LiveService]:
    """Start ``services`` side by side; return them when all are ready. Raises SandboxError, and Fail.

    ``undo`` ends them.
    """
    from pytest_sandbox_runtime.errors import ImageError

    with ThreadPoolExecutor(len(services), thread_name_prefix="services") as pool:
        starts = [pool.submit(engine.start, service, network) for service in services]
    failures = [one.exception() for one in starts]
    lives = [undo.enter_context(one.result()) for one, failure in zip(starts, failures) if failure is None]  # noqa: B905
    for service, failure in zip(services, failures):  # noqa: B905
        if isinstance(failure, ImageError):
            raise Fail(f"image of [{PREFIX}:{service.name}]: {failure}") from failure
        if failure is not None:
            raise failure
    return lives


def exported(lives: Sequence[LiveService], *, inside: bool) -> dict[str, str]:
    """Return the variables that say where services are: for others on their network, or for this machine.

    The names are those of tox-docker: DB_HOST, and DB_5432_TCP_PORT for each port.
    """
    variables = {}
    for live in lives:
        name = re.sub("[^A-Z0-9]", "_", live.service.name.upper())
        variables[f"{name}_HOST"] = live.service.name if inside else "127.0.0.1"
        for port in live.service.ports:
            variables[f"{name}_{port}_TCP_PORT"] = str(port if inside else live.address(port)[1])
    return variables
