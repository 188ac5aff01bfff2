"""PYTEST_DONT_REWRITE. Layers that install packages, and the steps that they stand for.

What a package manager leaves behind besides the packages differs from one day to the next: lists, caches, logs, and
byte code that holds times. The steps leave none of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.bases import PLACE
from pytest_sandbox_runtime.specs.checks import check_packages
from pytest_sandbox_runtime.specs.context import Context
from pytest_sandbox_runtime.specs.file_layers import Run
from pytest_sandbox_runtime.specs.requirements import files_of
from pytest_sandbox_runtime.specs.run_mounts import BindMount, CacheMount, TmpfsMount

# 2024-01-01: late enough for zip, which knows no year before 1980, and for anything that is installed with a date.
SOURCE_DATE_EPOCH = 1704067200
_SHELL = ("/bin/sh", "-euc")
# With the epoch py_compile(1) and useradd(8) write no times; with the seed sets are written in one order.
_STABLE = (("LC_ALL", "C.UTF-8"), ("PYTHONHASHSEED", "0"), ("SOURCE_DATE_EPOCH", str(SOURCE_DATE_EPOCH)))
_APT_ENV = (("DEBIAN_FRONTEND", "noninteractive"), *_STABLE)
_APT_LEFT = (
    "/var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/log/bootstrap.log /var/log/fontconfig.log "
    "/var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/cache/man/*"
)
# A service that is started with its installation would take this machine's own ports: invoke-rc.d(8).
_NO_SERVICES = """\
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
trap 'rm -f $policy' EXIT
printf '#!/bin/sh\\nexit 101\\n' > $policy
chmod 755 $policy
fi
"""
_PIP_CACHE = "/var/cache/pip"
_PIP_REQUIREMENTS = "/tmp/requirements"
_PIP_ENV = (
    ("PIP_BREAK_SYSTEM_PACKAGES", "1"),
    ("PIP_CACHE_DIR", _PIP_CACHE),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIP_NO_INPUT", "1"),
    ("PIP_ROOT_USER_ACTION", "ignore"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    *_STABLE,
)


def _check_some(packages: tuple[str, ...], what: str) -> None:
    if not packages:
        raise SpecError(f"{what} names no package", hint=f'for example {what}("curl")')


@dataclass(frozen=True, kw_only=True)
class Apt:
    """Debian packages with what they depend on, and with what they recommend where that is wanted."""

    packages: tuple[str, ...]
    update: bool = True
    recommends: bool = False

    def __post_init__(self) -> None:
        _check_some(self.packages, ".apt()")
        check_packages(self.packages, ".apt()")

    def as_run(self) -> Run:
        """Return the step that installs them and leaves only what they consist of."""
        recommends = "" if self.recommends else " --no-install-recommends"
        update = "apt-get -q update\n" if self.update else ""
        # apt has its own user fetch, who cannot write to a cache of root's.
        install = f'apt-get -q -y -o APT::Sandbox::User=root install{recommends} -- "$@"'
        script = f"{_NO_SERVICES}{update}{install}\nrm -rf {_APT_LEFT}\n"
        mounts = (
            CacheMount(target="/var/cache/apt", id="apt-archives", sharing="locked"),
            CacheMount(target="/var/lib/apt/lists", id="apt-lists", sharing="locked"),
        )
        command = (*_SHELL, script.replace("-q update", "-q -o APT::Sandbox::User=root update"), "apt", *self.packages)
        return Run(command=command, env=_APT_ENV, network="host", mounts=mounts)


@dataclass(frozen=True, kw_only=True)
class Pip:
    """Python packages, by name or from a requirements file of the host, for the image's own ``python``."""

    packages: tuple[str, ...] = ()
    requirements: str | None = field(default=None, metadata=PLACE)
    python: str = "python3"

    def __post_init__(self) -> None:
        if self.requirements is None:
            _check_some(self.packages, ".pip()")
        else:
            object.__setattr__(self, "requirements", os.path.abspath(self.requirements))
        for name in self.packages:
            if not isinstance(name, str) or not name.strip() or name.startswith("-") or "\0" in name:
                raise SpecError(f".pip(): {name!r} is no requirement", hint='for example "requests>=2"')
        check_packages((self.python,), "python")

    def as_run(self) -> Run:
        """Return the step that installs them, without byte code: Python writes that where it wants it.

        Of the host it sees the requirements file, and those that this one names with -r and -c.
        """
        mounts: list[CacheMount | BindMount | TmpfsMount] = [
            CacheMount(target=_PIP_CACHE, id="pip", sharing="shared", mode=0o1777)
        ]
        wanted = list(self.packages)
        if self.requirements is not None:
            files = files_of(self.requirements)
            directory = os.path.commonpath(map(os.path.dirname, files))
            for file in files:
                name = os.path.relpath(file, directory)
                place = Context(directory=directory)
                mounts.append(BindMount(target=f"{_PIP_REQUIREMENTS}/{name}", source=name, context=place))
            wanted += ["-r", f"{_PIP_REQUIREMENTS}/{os.path.relpath(self.requirements, directory)}"]
        command = (self.python, "-m", "pip", "install", "--no-compile", *wanted)
        return Run(command=command, env=_PIP_ENV, network="host", mounts=tuple(mounts))


@dataclass(frozen=True, kw_only=True)
class Apk:
    """Alpine packages with what they depend on."""

    packages: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_some(self.packages, ".apk()")
        check_packages(self.packages, ".apk()")

    def as_run(self) -> Run:
        """Return the step that installs them and keeps neither index nor packages nor log."""
        script = 'apk add --no-cache --no-progress -- "$@"\nrm -rf /var/log/apk.log /var/cache/apk/*\n'
        return Run(command=(*_SHELL, script, "apk", *self.packages), env=_STABLE, network="host")
