"""PYTEST_DONT_REWRITE. The closed unions of all layers."""

from __future__ import annotations

from typing import Union

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
from pytest_sandbox_runtime.specs.file_layers import Copy, Download, File, Run
from pytest_sandbox_runtime.specs.packages import Apk, Apt, Pip

FileLayer = Union[Run, Copy, File, Download, Apt, Pip, Apk, Workdir]  # noqa: UP007  evaluated, on 3.10 too
ConfigLayer = Union[  # noqa: UP007
    Author, Env, User, Cmd, Entrypoint, Expose, Label, Healthcheck, Volume, StopSignal, Shell, OnBuild
]
Layer = Union[FileLayer, ConfigLayer]  # noqa: UP007
FILE_LAYERS = (Run, Copy, File, Download, Apt, Pip, Apk, Workdir)
CONFIG_LAYERS = (Author, Env, User, Cmd, Entrypoint, Expose, Label, Healthcheck, Volume, StopSignal, Shell, OnBuild)
LAYERS = (*FILE_LAYERS, *CONFIG_LAYERS)
