"""PYTEST_DONT_REWRITE. Dockerfiles as images: stages that start from each other, and the one that is wanted."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import DockerfileError
from pytest_sandbox_runtime.images.config import PATH, config_of
from pytest_sandbox_runtime.images.dockerfile.evaluation import Scope, Surroundings
from pytest_sandbox_runtime.images.dockerfile.expansion import expand
from pytest_sandbox_runtime.images.dockerfile.instructions import NO_TRIGGERS, located, parse_instruction
from pytest_sandbox_runtime.images.dockerfile.lexer import Source, read_statements
from pytest_sandbox_runtime.images.dockerfile.platform import native_platform, platform_variables
from pytest_sandbox_runtime.images.dockerfile.stages import Stages
from pytest_sandbox_runtime.specs.bases import Dockerfile, Pull, Scratch
from pytest_sandbox_runtime.specs.config_layers import Cmd, Entrypoint, OnBuild
from pytest_sandbox_runtime.specs.context import Context
from pytest_sandbox_runtime.specs.file_layers import PROXIES
from pytest_sandbox_runtime.specs.image import Image
from pytest_sandbox_runtime.specs.origin import set_origin
from pytest_sandbox_runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_sandbox_runtime.images.dockerfile.instructions import Instruction
    from pytest_sandbox_runtime.images.dockerfile.stages import Stage
    from pytest_sandbox_runtime.specs.layers import Layer

    ConfigOf = Callable[[Image], Mapping[str, Any]]

_NAMES = ("Dockerfile", "Containerfile")


def read(
    path: str | os.PathLike[str],
    target: str | None = None,
    args: Mapping[str, str] | None = None,
    contexts: Mapping[str, Image] | None = None,
    *,
    context: str | None = None,
    secrets: Mapping[str, str] | None = None,
    base_config: ConfigOf = config_of,
) -> Image:
    """Return the stage ``target``, or the last one, of the Dockerfile ``path``, or of the one in the folder ``path``.

    Files are copied from the folder ``context``, by default the one that holds the Dockerfile; ``secrets`` are files by
    the ids of secret mounts. ``base_config`` returns the configuration of an image that a stage starts from: its
    variables are used in the Dockerfile, and its OnBuild is carried out. Without it, that of pulled images is taken to
    be empty. Raises DockerfileError.
    """
    file = _file_of(os.fspath(path))
    try:
        with open(file, encoding="utf-8", errors="surrogateescape", newline="") as opened:
            text = opened.read()
    except OSError as error:
        raise DockerfileError(f"it cannot be read: {error.strerror}", path=file) from error
    directory = os.path.abspath(context or os.path.dirname(os.path.abspath(file)))
    ignored = (f"{os.path.abspath(file)}.dockerignore", os.path.join(directory, ".dockerignore"))
    where = Context(directory=directory, ignore_files=ignored)
    return read_text(text, file, target, args, contexts, context=where, secrets=secrets, base_config=base_config)


def read_text(
    text: str,
    path: str = "Dockerfile",
    target: str | None = None,
    args: Mapping[str, str] | None = None,
    contexts: Mapping[str, Image] | None = None,
    *,
    secrets: Mapping[str, str] | None = None,
    context: Context | None = None,
    base_config: ConfigOf = config_of,
) -> Image:
    """Return what ``read`` does, for a ``text`` that errors call ``path``, and that copies files from ``context``."""
    source = read_statements(text, path)
    where = context or Context.of(os.getcwd())
    reader = _Reader(source, where, dict(args or {}), dict(contexts or {}), dict(secrets or {}), base_config)
    return reader.image(target)


def resolve(image: Image, *, base_config: ConfigOf = config_of) -> Image:
    """Return ``image`` with its Dockerfile, if it starts from one, read; raises DockerfileError."""
    while isinstance(image.base, Dockerfile):
        base = image.base
        words = (base.path, base.target, dict(base.args), dict(base.contexts))
        below = read(*words, context=base.context, secrets=dict(base.secrets), base_config=base_config)
        image = Image(below.base, (*_inherited(below.layers, image.layers), *image.layers))
    return image


def _inherited(layers: tuple[Layer, ...], above: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return those of ``layers`` that count below ``above``, as if they were those of a base."""
    if not above:
        return layers
    # As everywhere, OnBuild is for whoever starts from the image by a Dockerfile.
    lost: tuple[type[Layer], ...] = (OnBuild,)
    command = next((layer for layer in above if isinstance(layer, (Cmd, Entrypoint))), None)
    if isinstance(command, Entrypoint):
        lost = (OnBuild, Cmd)  # as a base's command does not fit another entrypoint
    return tuple(layer for layer in layers if not isinstance(layer, lost))


def _file_of(path: str) -> str:
    if not os.path.isdir(path):
        return path
    files = [os.path.join(path, name) for name in _NAMES]
    return next((file for file in files if os.path.exists(file)), files[0])


class _Reader:
    """The stages of one Dockerfile, each gone through once, when it is needed."""

    def __init__(
        self,
        source: Source,
        context: Context,
        args: dict[str, str],
        contexts: dict[str, Image],
        secrets: dict[str, str],
        base_config: ConfigOf,
    ) -> None:
        self._source = source
        self._context = context
        self._args = args
        self._contexts = contexts
        self._secrets = secrets
        self._base_config = base_config
        self._globals = _platforms(args)
        self._declared = {*PROXIES, *self._globals}
        self._stages = Stages(source, self._globals, contexts)
        self._done: dict[int, tuple[Image, Scope]] = {}
        self._has_stage = False
        for statement in source.statements:
            self._add(parse_instruction(statement, source))

    def image(self, target: str | None) -> Image:
        """Return the stage ``target``, or the last one."""
        wanted = self._stages.target(target)
        if wanted.name in self._contexts:
            return self._contexts[wanted.name]
        # From the first on, as no stage needs a later one: a long row of stages is no deep recursion.
        for index in self._stages.needed(wanted):
            self._evaluate(index)
        self._check_args()
        return self._evaluate(wanted.index)[0]

    def _add(self, instruction: Instruction) -> None:
        if instruction.keyword == "ARG":
            self._declared.update(word.partition("=")[0] for word in instruction.args)
        if instruction.keyword == "FROM":
            self._has_stage = True
            self._stages.start(instruction)
        elif instruction.keyword == "ARG" and not self._has_stage:
            self._set_globals(instruction)
        else:
            self._stages.follow(instruction)

    def _set_globals(self, instruction: Instruction) -> None:
        for word in instruction.args:
            name, equals, default = word.partition("=")
            with located(self._source.path, instruction.line, "ARG"):
                name = self._expand(name)
                value = self._args.get(name)
                if value is None and equals:
                    value = self._expand(default)
            if value is not None:
                self._globals[name] = value

    def _expand(self, word: str) -> str:
        return expand(word, self._globals, escape=self._source.escape)

    def _check_args(self) -> None:
        for name in self._args:
            if name not in self._declared:
                hint = did_you_mean(name, self._declared, f"ARG {name} would declare it")
                raise self._stages.error(f"args has {name}, which no ARG declares", hint=hint)

    def _evaluate(self, index: int) -> tuple[Image, Scope]:
        if index not in self._done:
            stage = self._stages[index]
            base, scope, triggers = self._start(stage)
            for trigger in triggers:
                self._trigger(trigger, stage, scope)
            for instruction in stage.instructions:
                self._follow(scope, instruction, instruction)
            self._done[index] = Image(base.base, tuple(scope.layers)), scope
        return self._done[index]

    def _start(self, stage: Stage) -> tuple[Image, Scope, list[str]]:
        """Return what the stage starts from, the scope that it starts in, and the triggers of what it starts from."""
        before = self._stages.base_of(stage)
        if before is not None:
            image, outer = self._evaluate(before)
            scope = self._scope(stage, image, outer.variables, outer.workdir)
            scope.args.update(outer.args)
            return image, scope, [layer.trigger for layer in image.layers if isinstance(layer, OnBuild)]
        image = self._base(stage)
        config = self._base_config(image)
        variables = {"PATH": PATH, **dict(pair.partition("=")[::2] for pair in config.get("Env") or ())}
        scope = self._scope(stage, image, variables, config.get("WorkingDir") or "/")
        return image, scope, list(config.get("OnBuild") or ())

    def _scope(self, stage: Stage, image: Image, variables: Mapping[str, str], workdir: str) -> Scope:
        def image_of(instruction: Instruction, name: str) -> Image:
            index = self._stages.source_of(name, stage.index, instruction)
            return self._named(name) if index is None else self._evaluate(index)[0]

        layers: list[Layer] = [layer for layer in image.layers if not isinstance(layer, OnBuild)]
        words = (self._context, self._source.escape, self._args, self._globals, self._secrets)
        around = Surroundings(*words, image_of)
        return Scope(around, layers, dict(variables), workdir=workdir)

    def _named(self, name: str) -> Image:
        if name in self._contexts:
            return self._contexts[name]
        return Image(Scratch()) if name == "scratch" else Image(Pull(name))

    def _base(self, stage: Stage) -> Image:
        with located(self._source.path, stage.start.line, "FROM"):
            image = self._named(self._stages.base_name(stage))
            said = stage.start.flags.one("platform")
            platform = self._expand(said or "")
        if said and not platform:
            raise self._stages.error(f"--platform={said} is empty", stage.start)
        if not isinstance(image.base, Pull) or image.layers or platform in {"", native_platform()}:
            return image
        return Image(Pull(image.base.reference, platform))

    def _trigger(self, trigger: str, stage: Stage, scope: Scope) -> None:
        place = f"{self._source.path}:{stage.start.line}: FROM: ONBUILD"
        for statement in read_statements(trigger, place).statements:
            instruction = replace(parse_instruction(statement, Source(place)), line=stage.start.line)
            if instruction.keyword in NO_TRIGGERS:
                raise self._stages.error(f"{instruction.keyword} cannot be a trigger", stage.start)
            if instruction.keyword == "ARG":
                self._declared.update(word.partition("=")[0] for word in instruction.args)
            self._follow(scope, instruction, stage.start)

    def _follow(self, scope: Scope, instruction: Instruction, place: Instruction) -> None:
        there = len(scope.layers)
        with located(self._source.path, place.line, place.keyword):
            scope.follow(instruction)
        for layer in scope.layers[there:]:
            set_origin(layer, f"{self._source.path}:{place.line}: {place.keyword}")


def _platforms(args: Mapping[str, str]) -> dict[str, str]:
    target = args.get("TARGETPLATFORM", native_platform())
    variables = {**platform_variables("BUILD", native_platform()), **platform_variables("TARGET", target)}
    return {name: args.get(name, value) for name, value in variables.items()}
