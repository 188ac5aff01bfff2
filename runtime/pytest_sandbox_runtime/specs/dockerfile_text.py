"""PYTEST_DONT_REWRITE. Images as Dockerfiles: one stage for each image that another one copies or mounts from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.bases import Pull, Scratch
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
from pytest_sandbox_runtime.specs.dockerfile_quoting import (
    command_words,
    flag,
    heredoc,
    json_words,
    no_newline,
    pair,
    path_words,
    quoted,
    step_words,
    whole_line,
)
from pytest_sandbox_runtime.specs.file_layers import Copy, Download, File, Run
from pytest_sandbox_runtime.specs.packages import Apk, Apt, Pip
from pytest_sandbox_runtime.specs.run_mounts import BindMount, CacheMount, FileMount, SecretMount, TmpfsMount

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.specs.image import Image
    from pytest_sandbox_runtime.specs.layers import Layer
    from pytest_sandbox_runtime.specs.run_mounts import RunMount

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"[A-Za-z0-9][\w./:@+-]*", re.ASCII)
_SHELL = ("/bin/sh", "-c")


def dockerfile_text(image: Image) -> str:
    """Return the Dockerfile of ``image``; raises SpecError that names what none can say."""
    return "\n".join(_Writer().write(image))


class _Writer:
    """The stages so far: each image's name, and its lines."""

    def __init__(self) -> None:
        self._names: dict[Image, str] = {}
        self._stages: list[list[str]] = []
        self._context: str | None = None

    def write(self, image: Image) -> list[str]:
        last = _Stage(self, image).lines(name="")
        return ["\n".join(stage) + "\n" for stage in (*self._stages, last)]

    def name_of(self, image: Image) -> str:
        """Return what --from calls ``image``, its stage written."""
        if isinstance(image.base, Scratch) and not image.layers:
            return "scratch"
        if isinstance(image.base, Pull) and not image.layers and image.base.platform is None:
            return _reference(image.base)
        if image not in self._names:
            stage = _Stage(self, image)
            lines = stage.lines(name="?")
            self._names[image] = f"stage{len(self._stages)}"
            lines[0] = lines[0].removesuffix("?") + self._names[image]
            self._stages.append(lines)
        return self._names[image]

    def check_context(self, directory: str) -> None:
        """Raise SpecError where files are copied from more than one folder."""
        if self._context not in (None, directory):
            msg = f"a Dockerfile copies from one folder, and this image from {self._context} and {directory}"
            raise SpecError(msg, hint="name one context, above both, for all of its copies")
        self._context = directory


class _Stage:
    """One image's lines."""

    def __init__(self, writer: _Writer, image: Image) -> None:
        self._writer = writer
        self._image = image
        self._shell: tuple[str, ...] = _SHELL
        self._args: dict[str, str] = {}
        self._later = _later_arguments(image.layers)

    def lines(self, name: str) -> list[str]:
        lines = [f"FROM {_base(self._image)}{f' AS {name}' if name else ''}"]
        for index, layer in enumerate(self._image.layers):
            try:
                lines += self._lines_of(layer, self._later[index])
            except SpecError as error:
                raise SpecError(f"no Dockerfile can say {layer!r}: {error.message}", hint=error.hint) from error
        return lines

    def _lines_of(self, layer: Layer, arguments: dict[str, str]) -> list[str]:
        step = layer.as_run() if isinstance(layer, (Apt, Pip, Apk)) else layer
        if isinstance(step, Run):
            return self._run(step, arguments)
        if isinstance(step, Copy):
            return [self._copy(step)]
        if isinstance(step, Shell):
            self._shell = step.command
        if isinstance(step, Env):
            for name, _ in step.variables:
                self._args.pop(name, None)
        if isinstance(step, (Cmd, Entrypoint)):
            return [f"{type(step).__name__.upper()} {command_words(step.command, self._shell)}"]
        return [_CONFIGURATIONS[type(step)](step)]

    def _run(self, layer: Run, arguments: dict[str, str]) -> list[str]:
        new = {name: value for name, value in arguments.items() if self._args.get(name) != value}
        self._args.update(new)
        declared = [f"ARG {pair(name, value)}" for name, value in sorted(new.items())]
        flags = [] if layer.network == "host" else ["--network=none"]
        scripts = [mount for mount in layer.mounts if isinstance(mount, FileMount)]
        flags += [self._mount(mount) for mount in layer.mounts if not isinstance(mount, FileMount)]
        own = {name: value for name, value in layer.env if arguments.get(name) != value}
        if not scripts:
            command = step_words(layer.command, self._shell, own)
        elif own or len(scripts) > 1 or layer.command != (scripts[0].target,):
            raise SpecError("a file that is there during a step only")
        else:
            command = _script(scripts[0])
        return [*declared, " ".join(["RUN", *flags, command])]

    def _mount(self, mount: RunMount) -> str:
        words = _mount_words(mount)
        if isinstance(mount, (BindMount, CacheMount)) and mount.from_ is not None:
            words["from"] = self._writer.name_of(mount.from_)
        if isinstance(mount, BindMount) and mount.context is not None:
            self._writer.check_context(mount.context.directory)
        for value in words.values():
            if not re.fullmatch(r"[\w./@%+:~-]+", value):
                raise SpecError(f"a mount with {value!r} in it", hint="letters, digits and ./@%+:~-_ can be written")
        return "--mount=" + ",".join(f"{name}={value}" for name, value in words.items())

    def _copy(self, layer: Copy) -> str:
        keyword = "ADD" if layer.unpack else "COPY"
        flags = _ownership(layer)
        if layer.from_ is not None:
            if layer.unpack:
                raise SpecError("ADD unpacks no archives of other images", hint="copy it, and unpack it by .run()")
            flags.append(f"--from={self._writer.name_of(layer.from_)}")
        if layer.context is not None:
            self._writer.check_context(layer.context.directory)
        flags += [flag("exclude", pattern) for pattern in layer.exclude]
        flags += ["--link"] if layer.link else []
        words, contents = path_words((*layer.sources, layer.target), listed=not layer.inline), ""
        if layer.inline:
            *sources, target = words
            documents = [heredoc(name, content) for name, content in layer.inline]
            words = [*sources, *(opening for opening, _ in documents), target]
            contents = "".join(f"\n{body}" for _, body in documents)
        return " ".join([keyword, *flags, *words]) + contents


def _later_arguments(layers: tuple[Layer, ...]) -> list[dict[str, str]]:
    """Return, for each layer, the variables that ARG can give it: it would give them to all later steps as well."""
    found: list[dict[str, str]] = []
    common: dict[str, str] | None = None
    for layer in reversed(layers):
        if isinstance(layer, (Run, Apt, Pip, Apk)):
            env = dict(layer.env) if isinstance(layer, Run) else {}
            said = {name: value for name, value in env.items() if _VARIABLE.fullmatch(name) and "\n" not in value}
            common = said if common is None else {n: v for n, v in said.items() if common.get(n) == v}
        found.append(dict(common or {}))
    return found[::-1]


def _reference(base: Pull) -> str:
    if not _REFERENCE.fullmatch(base.reference):
        raise SpecError(f"no Dockerfile can say {base!r}")
    return base.reference


def _base(image: Image) -> str:
    if isinstance(image.base, Scratch):
        return "scratch"
    if isinstance(image.base, Pull):
        platform = "" if image.base.platform is None else f"--platform={image.base.platform} "
        return platform + _reference(image.base)
    hint = "push or save what it starts from, and start from that by Image.pull(reference)"
    if image.kind == "dockerfile":
        hint = "images.dockerfile.resolve(image) reads it first"
    raise SpecError(f"no Dockerfile can start from {image.base!r}", hint=hint)


def _script(mount: FileMount) -> str:
    directory, _, name = mount.target.rpartition("/")
    if directory != "/dev/pipes" or not mount.content.startswith(b"#!") or mount.mode != 0o755:
        raise SpecError("a file that is there during a step only")
    opening, body = heredoc(name, mount.content)
    return f"{opening}\n{body}"


def _mount_words(mount: RunMount) -> dict[str, str]:
    kind = type(mount).__name__.removesuffix("Mount").lower()
    words: dict[str, str | None] = {"type": kind, "target": mount.target}
    if isinstance(mount, TmpfsMount):
        words["size"] = None if mount.size is None else str(mount.size)
    if isinstance(mount, (BindMount, CacheMount)):
        words["source"] = mount.source or None
        if mount.read_only != isinstance(mount, BindMount):
            words["readonly"] = str(mount.read_only).lower()
    if isinstance(mount, (CacheMount, SecretMount)):
        default = 0o755 if isinstance(mount, CacheMount) else 0o400
        words["id"] = mount.id
        words["mode"] = None if mount.mode == default else format(mount.mode, "o")
        words.update(uid=str(mount.uid) if mount.uid else None, gid=str(mount.gid) if mount.gid else None)
    if isinstance(mount, CacheMount):
        words["sharing"] = None if mount.sharing == "shared" else mount.sharing
    if isinstance(mount, SecretMount):
        words.update(env=mount.env, required="true" if mount.required else None)
    return {name: value for name, value in words.items() if value is not None}


def _ownership(layer: Copy | File | Download) -> list[str]:
    said = (("chmod", layer.chmod), ("chown", layer.chown))
    return [flag(name, value, expands=True) for name, value in said if value is not None]


def _file(layer: File) -> str:
    opening, body = heredoc("", layer.content)
    return " ".join(["COPY", *_ownership(layer), opening, *path_words((layer.path,), listed=False)]) + f"\n{body}"


def _download(layer: Download) -> str:
    flags = _ownership(layer)
    flags += [f"--checksum={layer.checksum}"] if layer.checksum is not None else []
    flags += ["--unpack"] if layer.unpack else []
    return " ".join(["ADD", *flags, *path_words((layer.url, layer.target), listed=True)])


def _healthcheck(layer: Healthcheck) -> str:
    if layer.command is None:
        return "HEALTHCHECK NONE"
    flags = []
    for name in ("interval", "timeout", "start_period", "start_interval"):
        seconds = getattr(layer, name)
        if seconds:
            span = f"{seconds}s" if isinstance(seconds, int) else f"{round(seconds * 10**9)}ns"
            flags.append(f"--{name.replace('_', '-')}={span}")
    flags += [f"--retries={layer.retries}"] if layer.retries else []
    return " ".join(["HEALTHCHECK", *flags, "CMD", command_words(layer.command, None)])


def _on_build(layer: OnBuild) -> str:
    return f"ONBUILD {layer.trigger}"


_CONFIGURATIONS: dict[type[Any], Callable[[Any], str]] = {
    Author: lambda layer: f"MAINTAINER {whole_line(layer.name)}",
    Download: _download,
    Env: lambda layer: "ENV " + " ".join(pair(name, value) for name, value in layer.variables),
    Expose: lambda layer: "EXPOSE " + " ".join(layer.ports),
    File: _file,
    Healthcheck: _healthcheck,
    Label: lambda layer: "LABEL " + " ".join(pair(name, value) for name, value in layer.labels),
    OnBuild: _on_build,
    Shell: lambda layer: f"SHELL {json_words(layer.command)}",
    StopSignal: lambda layer: f"STOPSIGNAL {layer.signal}",
    User: lambda layer: f"USER {quoted(no_newline(layer.user))}",
    Volume: lambda layer: f"VOLUME {json_words(layer.paths, expands=True)}",
    Workdir: lambda layer: f"WORKDIR {quoted(no_newline(layer.path))}",
}
