"""PYTEST_DONT_REWRITE. An image's declaration: a base and layers, each method returning a new one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.checks import check_text, command_of, environment, mode_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from pytest_sandbox_runtime.specs.bases import Base
    from pytest_sandbox_runtime.specs.layers import Layer

    Path = str | os.PathLike[str]
    Command = str | Sequence[str]


@dataclass(frozen=True)
class Host:
    """This very machine, copy-on-write, without its secrets and doors."""

    kind: ClassVar[str] = "host"


@dataclass(frozen=True, repr=False, eq=False)
class Image:
    """What a sandbox's root file system starts as: this machine, if nothing else is said.

    Declaring one touches nothing; each method returns a new image with one layer more, and raises SpecError where
    that could never be built.
    """

    base: Base = Host()
    layers: tuple[Layer, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.base, Host):
            _check_base(self.base)
        # An image in a layer of an image in a layer would be gone through again and again.
        object.__setattr__(self, "_hash", hash((self.base, self.layers)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Image):
            return NotImplemented
        return self is other or (hash(self) == hash(other) and (self.base, self.layers) == (other.base, other.layers))

    def __hash__(self) -> int:
        return int(self.__dict__["_hash"])

    def __reduce__(self) -> tuple[type[Self], tuple[Base, tuple[Layer, ...]]]:
        # Hashes of strings are of one process only.
        return type(self), (self.base, self.layers)

    def __repr__(self) -> str:
        from pytest_sandbox_runtime.specs.spelling import spelled_image

        return spelled_image(self)

    def __str__(self) -> str:
        if self.is_host:
            return "the host"
        return self.path or repr(self)

    @property
    def kind(self) -> str:
        """What the base is: host, scratch, pull, archive, dockerfile or debian."""
        return self.base.kind

    @property
    def is_host(self) -> bool:
        """Whether it is this very machine, with no layer over it."""
        return isinstance(self.base, Host) and not self.layers

    @property
    def path(self) -> str | None:
        """The directory or archive that is all of it; None for any other image."""
        if self.kind != "archive" or self.layers:
            return None
        path: str = self.base.path  # type: ignore[union-attr]
        return path

    def key(self) -> str:
        """Return a digest of the declaration alone: the same on any machine, whatever lies on its disk."""
        if "_key" not in self.__dict__:
            from pytest_sandbox_runtime.specs.keys import image_key

            object.__setattr__(self, "_key", image_key(self))
        return str(self.__dict__["_key"])

    def to_dockerfile(self) -> str:
        """Return the text of a Dockerfile that builds the same, in the folder that its files are copied from.

        Raises SpecError that names what no Dockerfile can say.
        """
        from pytest_sandbox_runtime.specs.dockerfile_text import dockerfile_text

        return dockerfile_text(self)

    @classmethod
    def host(cls) -> Self:
        """Return this very machine, copy-on-write, without its secrets and doors."""
        return cls()

    @classmethod
    def scratch(cls) -> Self:
        """Return an image with no file at all."""
        from pytest_sandbox_runtime.specs.bases import Scratch

        return cls(Scratch())

    @classmethod
    def pull(cls, ref: str, platform: str | None = None) -> Self:
        """Return the image that a registry has under ``ref``, for this machine or for ``platform``."""
        from pytest_sandbox_runtime.specs.bases import Pull

        return cls(Pull(ref, platform))

    @classmethod
    def archive(cls, path: Path) -> Self:
        """Return the root file system in ``path``: a directory, or a tar (plain, gzip, bzip2 or xz)."""
        from pytest_sandbox_runtime.specs.bases import Archive

        return cls(Archive(os.fspath(path)))

    @classmethod
    def dockerfile(
        cls,
        path: Path,
        target: str | None = None,
        args: Mapping[str, str] | None = None,
        contexts: Mapping[str, Image] | None = None,
        *,
        context: Path | None = None,
        secrets: Mapping[str, Path] | None = None,
    ) -> Self:
        """Return what the Dockerfile ``path``, or the one in the folder ``path``, says, up to the stage ``target``.

        ``args`` are values for its ARG instructions, and ``contexts`` images for the names in FROM and --from. Files
        are copied from the folder ``context``, by default the one that holds the Dockerfile. ``secrets`` are files of
        the host by the id of ``RUN --mount=type=secret,id=...``, seen during that step only.
        """
        from pytest_sandbox_runtime.specs.bases import Dockerfile

        pairs = tuple(sorted((args or {}).items()))
        images = tuple(sorted((contexts or {}).items(), key=_first))
        files = tuple(sorted((name, os.fspath(file)) for name, file in (secrets or {}).items()))
        where = None if context is None else os.fspath(context)
        return cls(Dockerfile(os.fspath(path), target, pairs, images, where, files))

    @classmethod
    def debian(cls, suite: str, packages: Sequence[str] = (), snapshot: str | None = None) -> Self:
        """Return a minimal Debian by mmdebstrap, with ``packages``; ``snapshot`` is a time of snapshot.debian.org."""
        from pytest_sandbox_runtime.specs.bases import Debian

        return cls(Debian(suite, _several(packages), snapshot))

    def with_layer(self, layer: Layer) -> Self:
        """Copy this image with ``layer`` on top."""
        from pytest_sandbox_runtime.specs.layers import LAYERS

        if not isinstance(layer, LAYERS):
            raise SpecError(f"{layer!r} is no layer", hint='for example Run(command="make install")')
        return type(self)(self.base, (*self.layers, layer))

    def run(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        network: str = "none",
        cache: Sequence[str] = (),
        secrets: Mapping[str, Path] | None = None,
    ) -> Self:
        """Run ``command``: a line for the shell, or a list. Without ``network="host"`` it has no network.

        ``cache`` are directories kept between builds and in no layer; ``secrets`` are files of the host by name, seen
        as /run/secrets/NAME during the step only.
        """
        from pytest_sandbox_runtime.specs.file_layers import Run
        from pytest_sandbox_runtime.specs.run_mounts import CacheMount, SecretMount

        caches = [CacheMount(target=path, sharing="locked") for path in _several(cache)]
        files = [
            SecretMount(id=name, source=os.fspath(path), required=True)
            for name, path in sorted((secrets or {}).items())
        ]
        pairs = environment(env)
        return self.with_layer(Run(command=command_of(command), env=pairs, network=network, mounts=(*caches, *files)))

    def copy(
        self,
        sources: Path | Sequence[Path],
        target: str,
        *,
        chmod: str | int | None = None,
        chown: str | int | None = None,
        exclude: Sequence[str] = (),
        from_: Image | None = None,
        context: Path | None = None,
    ) -> Self:
        """Copy files, the contents of directories, and what patterns match, to ``target``.

        Where that is more than one file, ``target`` has to end with a slash, or be a directory.
        Sources are relative to ``context``, by default the current directory, and what its .dockerignore names is left
        out; or they are paths in ``from_``, another image.
        """
        from pytest_sandbox_runtime.specs.context import context_of, rooted
        from pytest_sandbox_runtime.specs.file_layers import Copy

        given = [os.fspath(source) for source in _several(sources)]
        for source in given:
            check_text(source, "the source")
        where, names = (None, rooted(given)) if from_ is not None else context_of(given, context)
        owner = None if chown is None else str(chown)
        words: dict[str, Any] = {"chmod": mode_of(chmod), "chown": owner, "exclude": _several(exclude)}
        return self.with_layer(Copy(sources=names, target=target, context=where, from_=from_, **words))

    def file(
        self, path: str, content: str | bytes, *, chmod: str | int | None = None, chown: str | int | None = None
    ) -> Self:
        """Write ``content`` to the file ``path``."""
        from pytest_sandbox_runtime.specs.file_layers import File

        data = content.encode() if isinstance(content, str) else content
        owner = None if chown is None else str(chown)
        return self.with_layer(File(path=path, content=data, chmod=mode_of(chmod), chown=owner))

    def env(self, variables: Mapping[str, str] | None = None, /, **more: str) -> Self:
        """Set variables for all later layers and for what runs in the image."""
        from pytest_sandbox_runtime.specs.config_layers import Env

        return self.with_layer(Env(variables=environment({**(variables or {}), **more})))

    def workdir(self, path: str) -> Self:
        """Make ``path``, and have later layers and commands start in it."""
        from pytest_sandbox_runtime.specs.config_layers import Workdir

        return self.with_layer(Workdir(path=path))

    def user(self, user: str | int) -> Self:
        """Have later layers and commands run as ``user``: "name", "name:group", or a number."""
        from pytest_sandbox_runtime.specs.config_layers import User

        check_text(str(user), "the user")
        return self.with_layer(User(user=str(user)))

    def apt(self, *packages: str, update: bool = True, recommends: bool = False) -> Self:
        """Install Debian packages, after a look at what there is now unless ``update`` is false."""
        from pytest_sandbox_runtime.specs.packages import Apt

        return self.with_layer(Apt(packages=packages, update=update, recommends=recommends))

    def pip(self, *packages: str, requirements: Path | None = None, python: str = "python3") -> Self:
        """Install Python packages by name, or from a requirements file, with the image's own ``python``."""
        from pytest_sandbox_runtime.specs.packages import Pip

        file = None if requirements is None else os.fspath(requirements)
        return self.with_layer(Pip(packages=packages, requirements=file, python=python))

    def apk(self, *packages: str) -> Self:
        """Install Alpine packages."""
        from pytest_sandbox_runtime.specs.packages import Apk

        return self.with_layer(Apk(packages=packages))

    def cmd(self, command: Command) -> Self:
        """Set what runs in the image if nothing else is said; a string is a line for the shell."""
        from pytest_sandbox_runtime.specs.config_layers import Cmd

        return self.with_layer(Cmd(command=command_of(command)))

    def entrypoint(self, command: Command) -> Self:
        """Set the program that commands are arguments of."""
        from pytest_sandbox_runtime.specs.config_layers import Entrypoint

        return self.with_layer(Entrypoint(command=command_of(command)))

    def expose(self, *ports: int | str) -> Self:
        """Name ports that the image's commands listen on: 80, "53/udp", "8000-8010"."""
        from pytest_sandbox_runtime.specs.config_layers import Expose

        return self.with_layer(Expose(ports=tuple(map(str, ports))))

    def label(self, labels: Mapping[str, str] | None = None, /, **more: str) -> Self:
        """Set labels of the image."""
        from pytest_sandbox_runtime.specs.config_layers import Label

        return self.with_layer(Label(labels=tuple({**(labels or {}), **more}.items())))

    def healthcheck(
        self,
        command: Command | None,
        *,
        interval: str | float | None = None,
        timeout: str | float | None = None,
        start_period: str | float | None = None,
        start_interval: str | float | None = None,
        retries: int | None = None,
    ) -> Self:
        """Set the command that says whether a service is well, and how often, in seconds; None for no check."""
        from pytest_sandbox_runtime.specs.config_layers import Healthcheck

        times: Any = {"interval": interval, "timeout": timeout, "start_period": start_period}
        times["start_interval"] = start_interval
        check = None if command is None else command_of(command)
        return self.with_layer(Healthcheck(command=check, retries=retries, **times))

    def volume(self, *paths: str) -> Self:
        """Name directories whose content is not the image's."""
        from pytest_sandbox_runtime.specs.config_layers import Volume

        return self.with_layer(Volume(paths=paths))

    def stop_signal(self, signal: str | int) -> Self:
        """Set what commands are told to stop by."""
        from pytest_sandbox_runtime.specs.config_layers import StopSignal

        return self.with_layer(StopSignal(signal=str(signal)))

    def shell(self, command: Sequence[str]) -> Self:
        """Set the argv that later lines for a shell are put behind, by default /bin/sh -c."""
        from pytest_sandbox_runtime.specs.config_layers import Shell

        words: Any = command_of(command)
        return self.with_layer(Shell(command=words))


HOST: Final = Image()


def _several(values: Any) -> tuple[Any, ...]:
    return (values,) if isinstance(values, (str, os.PathLike)) else tuple(values)


def _first(pair: tuple[str, Image]) -> str:
    return pair[0]


def _check_base(base: object) -> None:
    from pytest_sandbox_runtime.specs.bases import BASES

    if not isinstance(base, BASES):
        raise SpecError(f"{base!r} is no base", hint='for example Image.pull("debian:12")')
