"""PYTEST_DONT_REWRITE. Images as they would be written: what repr returns can be pasted back."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.bases import Archive, Debian, Dockerfile, Pull, Unpacked
from pytest_sandbox_runtime.specs.config_layers import (
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Label,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from pytest_sandbox_runtime.specs.file_layers import Copy, File, Run
from pytest_sandbox_runtime.specs.image import Image
from pytest_sandbox_runtime.specs.packages import Apk, Apt, Pip
from pytest_sandbox_runtime.specs.run_mounts import CacheMount, SecretMount

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.specs.bases import Base
    from pytest_sandbox_runtime.specs.layers import Layer

_Call = tuple[str, tuple[Any, ...], dict[str, Any]]


def spelled_image(image: Image) -> str:
    """Return the expression that makes ``image``."""
    if isinstance(image.base, Unpacked):
        return image.base.label
    return f"Image.{_spelled(_base_call(image.base))}" + "".join(f".{spelled_layer(layer)}" for layer in image.layers)


def spelled_layer(layer: Layer) -> str:
    """Return the call that adds ``layer``."""
    spell = _CALLS.get(type(layer))
    if spell is not None:
        method, args, words = spell(layer)
        words = {name: value for name, value in words.items() if value is not None and value not in ((), {}, [])}
        try:
            said: Image = getattr(Image(), method)(*args, **words)
        except SpecError:
            pass
        else:
            if said.layers == (layer,):
                return _spelled((method, args, words))
    # There are layers that only Dockerfiles make.
    return f"with_layer({_spelled_value(layer)})"


def _spelled_value(value: Any) -> str:
    """Return the expression of ``value``, with nothing in it that goes without saying."""
    if isinstance(value, tuple):
        return f"({''.join(f'{_spelled_value(item)}, ' for item in value).rstrip(' ')})"
    if not is_dataclass(value) or isinstance(value, Image):
        return repr(value)
    said = [(field, getattr(value, field.name)) for field in fields(value)]
    words = [f"{field.name}={_spelled_value(part)}" for field, part in said if part != field.default]
    return f"{type(value).__name__}({', '.join(words)})"


def _spelled(call: _Call) -> str:
    method, args, words = call
    return f"{method}({', '.join([*map(repr, args), *(f'{name}={value!r}' for name, value in words.items())])})"


def _base_call(base: Base) -> _Call:
    words: dict[str, Any] = {}
    args: tuple[Any, ...] = ()
    if isinstance(base, Pull):
        args, words = (base.reference,), {"platform": base.platform}
    elif isinstance(base, Archive):
        args = (base.path,)
    elif isinstance(base, Dockerfile):
        args = (base.path,)
        words = {"target": base.target, "args": dict(base.args), "contexts": dict(base.contexts)}
        words.update(context=base.context, secrets=dict(base.secrets))
    elif isinstance(base, Debian):
        args, words = (base.suite,), {"packages": list(base.packages), "snapshot": base.snapshot}
    return base.kind, args, {name: value for name, value in words.items() if value}


def _named(method: str, pairs: tuple[tuple[str, str], ...]) -> _Call:
    if all(name.isidentifier() and name != "self" for name, _ in pairs):
        return method, (), dict(pairs)
    return method, (dict(pairs),), {}


def _command(command: str | tuple[str, ...]) -> str | list[str]:
    return command if isinstance(command, str) else list(command)


def _one(value: tuple[Any, ...]) -> Any:
    return value[0] if len(value) == 1 else list(value)


def _run(layer: Run) -> _Call:
    caches = [mount.target for mount in layer.mounts if isinstance(mount, CacheMount)]
    secrets = {mount.id: mount.source for mount in layer.mounts if isinstance(mount, SecretMount) and mount.source}
    network = None if layer.network == "none" else layer.network
    words = {"env": dict(layer.env), "network": network, "cache": caches, "secrets": secrets}
    return "run", (_command(layer.command),), words


def _copy(layer: Copy) -> _Call:
    words = {"chmod": layer.chmod, "chown": layer.chown, "exclude": list(layer.exclude), "from_": layer.from_}
    directory = layer.context.directory if layer.context is not None else None
    return "copy", (_one(layer.sources), layer.target), {**words, "context": directory}


def _file(layer: File) -> _Call:
    try:
        content: str | bytes = layer.content.decode()
    except UnicodeDecodeError:
        content = layer.content
    return "file", (layer.path, content), {"chmod": layer.chmod, "chown": layer.chown}


def _healthcheck(layer: Healthcheck) -> _Call:
    names = ("interval", "timeout", "start_period", "start_interval", "retries")
    command = None if layer.command is None else _command(layer.command)
    return "healthcheck", (command,), {name: getattr(layer, name) for name in names}


def _apt(layer: Apt) -> _Call:
    words = {"update": None if layer.update else False, "recommends": layer.recommends or None}
    return "apt", layer.packages, words


def _pip(layer: Pip) -> _Call:
    python = None if layer.python == "python3" else layer.python
    return "pip", layer.packages, {"requirements": layer.requirements, "python": python}


_CALLS: dict[type[Any], Callable[[Any], _Call]] = {
    Run: _run,
    Copy: _copy,
    File: _file,
    Apt: _apt,
    Pip: _pip,
    Apk: lambda layer: ("apk", layer.packages, {}),
    Env: lambda layer: _named("env", layer.variables),
    Label: lambda layer: _named("label", layer.labels),
    Workdir: lambda layer: ("workdir", (layer.path,), {}),
    User: lambda layer: ("user", (layer.user,), {}),
    Cmd: lambda layer: ("cmd", (_command(layer.command),), {}),
    Entrypoint: lambda layer: ("entrypoint", (_command(layer.command),), {}),
    Expose: lambda layer: ("expose", layer.ports, {}),
    Healthcheck: _healthcheck,
    Volume: lambda layer: ("volume", layer.paths, {}),
    StopSignal: lambda layer: ("stop_signal", (layer.signal,), {}),
    Shell: lambda layer: ("shell", (list(layer.command),), {}),
}
