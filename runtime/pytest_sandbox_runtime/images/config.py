"""PYTEST_DONT_REWRITE. An image's configuration, as the OCI image-spec has it: layers folded over their base's.

Where the specification leaves it to Docker (Healthcheck, OnBuild, Shell), names and units are Docker's.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from pytest_sandbox_runtime.specs.file_layers import Run
from pytest_sandbox_runtime.specs.layers import FILE_LAYERS
from pytest_sandbox_runtime.specs.packages import Apk, Apt, Pip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_sandbox_runtime.specs.image import Image
    from pytest_sandbox_runtime.specs.layers import Layer

Config = dict[str, Any]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True, kw_only=True)
class Step:
    """A layer and what is in force when it is made; ``config`` is the image's configuration once it is there."""

    layer: Layer
    env: tuple[tuple[str, str], ...]
    workdir: str
    user: str
    shell: tuple[str, ...]
    config: Config

    @property
    def changes_files(self) -> bool:
        """Whether the layer has files to make; else it changes the configuration only."""
        return isinstance(self.layer, FILE_LAYERS)

    @property
    def run(self) -> Run | None:
        """The command that makes the layer, if one does."""
        if isinstance(self.layer, (Apt, Pip, Apk)):
            return self.layer.as_run()
        return self.layer if isinstance(self.layer, Run) else None

    @property
    def argv(self) -> tuple[str, ...]:
        """The argv of ``run``, behind the shell in force where it is a line for that; () where there is none."""
        return () if self.run is None else in_shell(self.run.command, self.shell)

    @property
    def environment(self) -> dict[str, str]:
        """What ``run`` has in its environment."""
        return {**dict(self.env), **dict(self.run.env if self.run is not None else ())}

    def path(self, path: str) -> str:
        """Return ``path`` as an absolute one, from the workdir in force; a / at its end stays."""
        joined = posixpath.join(self.workdir, path)
        is_directory = joined.endswith(("/", "/."))
        return posixpath.normpath(f"/{joined.lstrip('/')}").rstrip("/") + ("/" if is_directory else "") or "/"


def in_shell(command: str | tuple[str, ...], shell: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``command`` as an argv: a line goes behind ``shell``."""
    return (*shell, command) if isinstance(command, str) else command


def config_of(image: Image, base: Mapping[str, Any] | None = None) -> Config:
    """Return the ``config`` object of ``image``, whose base has the configuration ``base``."""
    last = steps(image.layers, base)[-1:]
    return last[0].config if last else dict(base or {})


def author_of(image: Image, base: str = "") -> str:
    """Return the ``author`` of ``image``, which stands beside ``config``, and whose base has the author ``base``."""
    return next((layer.name for layer in reversed(image.layers) if isinstance(layer, Author)), base)


def steps(layers: Iterable[Layer], base: Mapping[str, Any] | None = None) -> list[Step]:
    """Return what making each of ``layers`` takes, over an image with the configuration ``base``.

    The base's OnBuild is for whoever reads a Dockerfile; it does not go on to what is built from it.
    """
    config = {name: value for name, value in (base or {}).items() if value and name != "OnBuild"}
    config["Env"] = _with_path(config.get("Env", []))
    has_cmd = False
    found = []
    for layer in layers:
        before = config
        config = dict(config)
        if isinstance(layer, Entrypoint) and not has_cmd:
            config.pop("Cmd", None)
        has_cmd = has_cmd or isinstance(layer, Cmd)
        change = _CHANGES.get(type(layer))
        if change is not None:
            change(layer, config)
        found.append(_step(layer, before, {name: value for name, value in config.items() if value}))
    return found


def _step(layer: Layer, before: Config, after: Config) -> Step:
    env = tuple((name, value) for name, _, value in (pair.partition("=") for pair in before["Env"]))
    shell = tuple(before.get("Shell", SHELL))
    workdir = before.get("WorkingDir", "/")
    return Step(layer=layer, env=env, workdir=workdir, user=before.get("User", ""), shell=shell, config=after)


def _with_path(env: list[str]) -> list[str]:
    # Docker gives every image a PATH.
    return list(env) if any(pair.startswith("PATH=") for pair in env) else [*env, f"PATH={PATH}"]


def _env(layer: Env, config: Config) -> None:
    pairs = dict(pair.partition("=")[::2] for pair in config["Env"])
    pairs.update(layer.variables)
    config["Env"] = [f"{name}={value}" for name, value in pairs.items()]


def _workdir(layer: Workdir, config: Config) -> None:
    joined = posixpath.join("/", config.get("WorkingDir", "/"), layer.path)
    config["WorkingDir"] = posixpath.normpath(f"/{joined.lstrip('/')}")


def _user(layer: User, config: Config) -> None:
    config["User"] = layer.user


def _cmd(layer: Cmd, config: Config) -> None:
    config["Cmd"] = list(in_shell(layer.command, tuple(config.get("Shell", SHELL))))


def _entrypoint(layer: Entrypoint, config: Config) -> None:
    config["Entrypoint"] = list(in_shell(layer.command, tuple(config.get("Shell", SHELL))))


def _expose(layer: Expose, config: Config) -> None:
    config["ExposedPorts"] = {**config.get("ExposedPorts", {}), **{port: {} for port in layer.each()}}


def _label(layer: Label, config: Config) -> None:
    config["Labels"] = {**config.get("Labels", {}), **dict(layer.labels)}


def _volume(layer: Volume, config: Config) -> None:
    config["Volumes"] = {**config.get("Volumes", {}), **{path.strip(): {} for path in layer.paths}}


def _stop_signal(layer: StopSignal, config: Config) -> None:
    config["StopSignal"] = layer.signal


def _shell(layer: Shell, config: Config) -> None:
    config["Shell"] = list(layer.command)


def _on_build(layer: OnBuild, config: Config) -> None:
    config["OnBuild"] = [*config.get("OnBuild", []), layer.trigger]


def _healthcheck(layer: Healthcheck, config: Config) -> None:
    if layer.command is None:
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    is_line = isinstance(layer.command, str)
    test = ["CMD-SHELL", layer.command] if is_line else ["CMD", *layer.command]
    times = {
        "Interval": layer.interval,
        "Timeout": layer.timeout,
        "StartPeriod": layer.start_period,
        "StartInterval": layer.start_interval,
    }
    spans = {name: round(seconds * 10**9) for name, seconds in times.items() if seconds}
    config["Healthcheck"] = {"Test": test, **spans, **({"Retries": layer.retries} if layer.retries else {})}


_CHANGES: dict[type[Any], Callable[[Any, Config], None]] = {
    Env: _env,
    Workdir: _workdir,
    User: _user,
    Cmd: _cmd,
    Entrypoint: _entrypoint,
    Expose: _expose,
    Label: _label,
    Healthcheck: _healthcheck,
    Volume: _volume,
    StopSignal: _stop_signal,
    Shell: _shell,
    OnBuild: _on_build,
}
