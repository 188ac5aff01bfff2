"""``pytest-sandbox build``: images of Dockerfiles and of Python declarations, with Docker's options.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import re
import sys
import time
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING

from pytest_sandbox.cli.secrets import secrets_of
from pytest_sandbox.cli.watching import watched
from pytest_sandbox.image_words import cache_from, cache_to
from pytest_sandbox_runtime.errors import SandboxError, SpecError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from types import ModuleType

    from pytest_sandbox_runtime.specs import Image

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_DECLARED = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w*))?")


def add_build(commands: Commands) -> None:
    """Add the command."""
    build = commands.add_parser("build", help="build images of Dockerfiles, or that Python files declare")
    build.add_argument(
        "what",
        nargs="+",
        metavar="PATH|FILE.py:NAME",
        help="a folder with a Dockerfile, or an Image of a Python file",
    )
    build.add_argument("-f", "--file", metavar="FILE", help="the Dockerfile (default: the one in PATH)")
    build.add_argument("-t", "--tag", action="append", default=[], metavar="REF", help="a name for the image")
    build.add_argument("--target", metavar="STAGE", help="the Dockerfile's stage to build (default: the last one)")
    build.add_argument(
        "--build-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a value for an ARG; NAME alone takes it from the environment",
    )
    build.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="id=NAME[,src=FILE|,env=VARIABLE]",
        help="what RUN --mount=type=secret,id=NAME sees, and no layer does",
    )
    build.add_argument(
        "--cache-from",
        action="append",
        default=[],
        metavar="REPOSITORY",
        help="look for layers in this repository of a registry before they are made",
    )
    build.add_argument("--cache-to", metavar="REPOSITORY", help="send the layers there for other machines")
    build.add_argument("--no-cache", action="store_true", help="make every layer anew")
    build.add_argument("--explain", action="store_true", help="say why a layer is not taken from the cache")
    build.add_argument("-q", "--quiet", action="store_true", help="say nothing but the digests")
    build.set_defaults(run=_build)


def _build(options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime import Engine
    from pytest_sandbox_runtime.images.reference import Reference

    if options.tag and len(options.what) > 1:
        raise SpecError("a tag is the name of one image", hint="build them one by one, each with its own -t")
    for tag in options.tag:
        Reference.parse(tag)
    began = time.time_ns()
    images = [_image(what, options) for what in options.what]
    printed = []
    settings = watched(
        rebuild=options.no_cache,
        explain=options.explain,
        quiet=options.quiet,
        cache_from=(*options.cache_from, *cache_from(os.environ)),
        cache_to=options.cache_to or cache_to(os.environ),
    )
    # Meanwhile the supervisor starts, which is another processor's work.
    Thread(target=_import_builder, daemon=True).start()
    with Engine.open(settings) as engine:
        for image in images:
            built = engine.images.build(image)
            for tag in options.tag:
                engine.images.tag(built, tag)
            printed.append(built.digest)
            print(built.digest)
    if _is_lasting(options):
        _remember(options.argv, began, images, "\n".join(printed))
    return 0


def _import_builder() -> None:
    for name in ("building.builder", "dockerfile", "building.running"):
        import_module(f"pytest_sandbox_runtime.images.{name}")
    import_module("filelock")


def _is_lasting(options: argparse.Namespace) -> bool:
    """Whether the same command means the same build until a file of it changes."""
    is_anew = options.no_cache or options.explain or os.environ.get("PYTEST_SANDBOX_NO_CACHE")
    is_more = options.secret or options.cache_to or cache_to(os.environ)
    is_said = all("=" in arg for arg in options.build_arg) and not any(map(_DECLARED.fullmatch, options.what))
    return is_said and not is_anew and not is_more


def _remember(argv: Sequence[str], began: int, images: Sequence[Image], printed: str) -> None:
    from pytest_sandbox.cli.answers import remember
    from pytest_sandbox_runtime.specs import Dockerfile

    read = []
    for image in images:
        assert isinstance(image.base, Dockerfile)
        path = image.base.path
        context = image.base.context or (path if os.path.isdir(path) else os.path.dirname(path))
        read += [path, f"{path}.dockerignore", context]
    remember(argv, began, read, printed)


def _image(what: str, options: argparse.Namespace) -> Image:
    declared = _DECLARED.fullmatch(what)
    if declared is None:
        return _dockerfile(what, options)
    if options.file or options.target or options.build_arg or options.secret:
        raise SpecError(f"{what} is no Dockerfile: --file, --target, --build-arg and --secret are for these")
    return _declared(declared["file"], declared["name"] or "")


def _dockerfile(path: str, options: argparse.Namespace) -> Image:
    from pytest_sandbox_runtime.specs import Image

    args = dict(map(_arg, options.build_arg))
    given = {name: value for name, value in args.items() if value is not None}
    secrets = secrets_of(options.secret)
    if options.file is None:
        return Image.dockerfile(path, options.target, given, secrets=secrets)
    if not os.path.isdir(path):
        raise SpecError(f"there is no folder {path} to copy files from", hint="pytest-sandbox build -f FILE FOLDER")
    return Image.dockerfile(options.file, options.target, given, context=path, secrets=secrets)


def _arg(word: str) -> tuple[str, str | None]:
    name, equals, value = word.partition("=")
    return name, value if equals else os.environ.get(name)


def _declared(file: str, name: str) -> Image:
    from pytest_sandbox_runtime.specs import Image

    found = vars(_module(file))
    image = found.get(name)
    if isinstance(image, Image):
        return image
    names = [one for one, value in found.items() if isinstance(value, Image)]
    hint = f"there are {', '.join(names)}" if names else 'for example: web = Image.pull("debian:12").apt("nginx-light")'
    raise SpecError(
        f"{file} has no image {name}" if name else f"which image of {file}? Name it: FILE.py:NAME", hint=hint
    )


def _module(file: str) -> ModuleType:
    """Return the module in ``file``, which may import what lies beside it."""
    import importlib.util

    path = os.path.abspath(file)
    if not os.path.isfile(path):
        raise SpecError(f"there is no file {file}")
    name = os.path.basename(path)[: -len(".py")]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(path))
    # Where dataclasses look for what annotations mean.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SandboxError:
        raise
    except Exception as error:  # whatever a user's module raises is what is to be told
        raise SpecError(_told(error, path)) from error
    return module


def _told(error: Exception, path: str) -> str:
    import traceback

    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    place = f"{path}:{lines[-1]}" if lines else path
    said = "".join(traceback.format_exception_only(type(error), error)).strip()
    return f"{place} cannot be imported: {said}"
