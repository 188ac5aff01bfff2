"""PYTEST_DONT_REWRITE. A stage's instructions as layers: variables expanded, in the scope that each one is in."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.images.dockerfile.copying import copy_layers
from pytest_sandbox_runtime.images.dockerfile.expansion import expand, expand_words
from pytest_sandbox_runtime.images.dockerfile.lexer import heredoc_of
from pytest_sandbox_runtime.images.dockerfile.mounts import mount_of, parse_options
from pytest_sandbox_runtime.images.dockerfile.words import WordsError
from pytest_sandbox_runtime.specs.config_layers import (
    Author,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Label,
    OnBuild,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from pytest_sandbox_runtime.specs.file_layers import PROXIES, Run
from pytest_sandbox_runtime.specs.run_mounts import FileMount, SecretMount

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_sandbox_runtime.images.dockerfile.instructions import Instruction
    from pytest_sandbox_runtime.specs.context import Context
    from pytest_sandbox_runtime.specs.image import Image
    from pytest_sandbox_runtime.specs.layers import Layer
    from pytest_sandbox_runtime.specs.run_mounts import RunMount


@dataclass
class Surroundings:
    """What every stage of a Dockerfile can use: its context, its other stages, and values from outside."""

    context: Context
    escape: str
    args: Mapping[str, str]
    globals: Mapping[str, str]
    secrets: Mapping[str, str]
    image_of: Callable[[Instruction, str], Image]


@dataclass
class Scope:
    """A stage while its instructions are gone through.

    ``variables`` is what words are expanded with; ``args`` those of them that are no part of the image.
    """

    around: Surroundings
    layers: list[Layer] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    sets_cmd: bool = False

    def expand(self, word: str) -> str:
        """Return ``word`` with the values of this scope; raises ExpansionError."""
        return expand(word, self.variables, escape=self.around.escape)

    def follow(self, instruction: Instruction) -> None:
        """Add the layers that ``instruction`` stands for; raises SpecError, ExpansionError, WordsError, FlagError."""
        _HANDLERS[instruction.keyword](self, instruction)


def _arg(scope: Scope, instruction: Instruction) -> None:
    for word in instruction.args:
        name, equals, default = word.partition("=")
        name = scope.expand(name)
        value = scope.around.args.get(name)
        if value is None:
            value = scope.expand(default) if equals else scope.around.globals.get(name)
        if value is not None:
            scope.variables[name] = scope.args[name] = value


def _env(scope: Scope, instruction: Instruction) -> None:
    pairs = {scope.expand(name): scope.expand(value) for name, value in instruction.pairs}
    scope.layers.append(Env(variables=tuple(pairs.items())))
    scope.variables.update(pairs)
    for name in pairs:
        scope.args.pop(name, None)


def _label(scope: Scope, instruction: Instruction) -> None:
    pairs = {scope.expand(name): scope.expand(value) for name, value in instruction.pairs}
    scope.layers.append(Label(labels=tuple(pairs.items())))


def _maintainer(scope: Scope, instruction: Instruction) -> None:
    scope.layers.append(Author(name=instruction.args[0]))


def _line(instruction: Instruction) -> str | tuple[str, ...]:
    return instruction.args if instruction.is_list else instruction.args[0]


def _run(scope: Scope, instruction: Instruction) -> None:
    command, mounts = _script(instruction)
    around = scope.around
    for text in instruction.flags.all("mount"):
        image_of = partial(around.image_of, instruction)
        mount = mount_of(parse_options(text), scope.expand, image_of, around.context, scope.workdir)
        if isinstance(mount, SecretMount):
            mount = replace(mount, source=around.secrets.get(mount.id))
        mounts.append(mount)
    network = "none" if instruction.flags.one("network") == "none" else "host"
    proxies = {name: value for name, value in around.args.items() if name in PROXIES}
    env = tuple({**proxies, **scope.args}.items())
    scope.layers.append(Run(command=command, env=env, network=network, mounts=tuple(mounts)))


def _script(instruction: Instruction) -> tuple[str | tuple[str, ...], list[RunMount]]:
    """Return the command of a RUN, and the file that it is in where it is a heredoc with a #! line."""
    if not instruction.heredocs:
        return _line(instruction), []
    first = instruction.heredocs[0]
    if heredoc_of(instruction.args[0]) is None:
        # The shell has heredocs of its own, and takes them from here.
        parts = [instruction.args[0], *(f"{heredoc.content}{heredoc.name}" for heredoc in instruction.heredocs)]
        return "\n".join(parts), []
    if not first.text.startswith("#!"):
        return first.text, []
    path = f"/dev/pipes/{first.name}"
    return (path,), [FileMount(target=path, content=first.text.encode("utf-8", "surrogateescape"))]


def _copy(scope: Scope, instruction: Instruction) -> None:
    around = scope.around
    where = instruction.flags.one("from")
    image = None
    if where is not None:
        if expand(where, {}) != where:
            raise WordsError("--from takes no variable: FROM $variable AS name, and --from=name")
        image = around.image_of(instruction, where)
    scope.layers += copy_layers(instruction, scope.expand, scope.variables, image, around.context)


def _workdir(scope: Scope, instruction: Instruction) -> None:
    layer = Workdir(path=scope.expand(instruction.args[0]))
    scope.layers.append(layer)
    scope.workdir = posixpath.normpath(posixpath.join(scope.workdir, layer.path))


def _user(scope: Scope, instruction: Instruction) -> None:
    scope.layers.append(User(user=scope.expand(instruction.args[0])))


def _cmd(scope: Scope, instruction: Instruction) -> None:
    scope.layers.append(Cmd(command=_line(instruction)))
    scope.sets_cmd = True


def _entrypoint(scope: Scope, instruction: Instruction) -> None:
    # A command that came with the stage's base does not fit another entrypoint.
    if not scope.sets_cmd and any(isinstance(layer, Cmd) for layer in scope.layers):
        scope.layers.append(Cmd(command=()))
    scope.layers.append(Entrypoint(command=_line(instruction)))


def _expose(scope: Scope, instruction: Instruction) -> None:
    words = [
        word for arg in instruction.args for word in expand_words(arg, scope.variables, escape=scope.around.escape)
    ]
    # Addresses and ports of the host can be written here, and mean nothing.
    scope.layers.append(Expose(ports=tuple(word.rpartition(":")[2] for word in words)))


def _volume(scope: Scope, instruction: Instruction) -> None:
    scope.layers.append(Volume(paths=tuple(map(scope.expand, instruction.args))))


def _stop_signal(scope: Scope, instruction: Instruction) -> None:
    scope.layers.append(StopSignal(signal=scope.expand(instruction.args[0])))


def _shell(scope: Scope, instruction: Instruction) -> None:
    scope.layers.append(Shell(command=instruction.args))


def _onbuild(scope: Scope, instruction: Instruction) -> None:
    scope.layers.append(OnBuild(trigger=instruction.args[0]))


def _healthcheck(scope: Scope, instruction: Instruction) -> None:
    kind, *command = instruction.args
    if kind == "NONE":
        scope.layers.append(Healthcheck(command=None))
        return
    times: dict[str, Any] = {}
    for name in ("interval", "timeout", "start-period", "start-interval"):
        value = instruction.flags.one(name)
        if value:
            times[name.replace("-", "_")] = value
    retries = instruction.flags.one("retries") or "0"
    if not re.fullmatch(r"[0-9]{1,9}", retries):
        raise WordsError(f"--retries={retries} is no number of times")
    words = tuple(command) if instruction.is_list else command[0]
    scope.layers.append(Healthcheck(command=words, **times, retries=int(retries) or None))


_HANDLERS: dict[str, Callable[[Scope, Instruction], None]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
