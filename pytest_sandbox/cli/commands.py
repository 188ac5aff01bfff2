"""What the command ``pytest-sandbox`` can do. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from pytest_sandbox.cli.build import add_build
from pytest_sandbox.cli.compose import add_compose
from pytest_sandbox.cli.images import add_commands
from pytest_sandbox.cli.registries import add_registries
from pytest_sandbox.cli.watching import watched
from pytest_sandbox.image_words import WORDS, image_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_sandbox_runtime import SandboxSpec


def run(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    options = parser().parse_args(argv, argparse.Namespace(argv=argv))
    from pytest_sandbox_runtime.errors import SandboxError

    try:
        status = int(options.run(options))
        sys.stdout.flush()
    except SandboxError as error:
        print(f"pytest-sandbox: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who read it has seen enough: head(1). What is still in the buffer is for nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def parser() -> argparse.ArgumentParser:
    """Return what reads the command's words."""
    words = argparse.ArgumentParser(
        prog="pytest-sandbox", description="Disposable machines, without a test around them."
    )
    commands = words.add_subparsers(required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="say what this host can do and what is missing")
    doctor.set_defaults(run=_doctor)
    for name, run, text in (
        ("run", _run, "run a command in a new sandbox"),
        ("shell", _shell, "open a shell in a new sandbox"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--image", default="host", help=f"{WORDS} (default: host)")
        command.add_argument("--memory", help="a limit, for example 256M")
        command.add_argument("--network", default="none", choices=("none", "host"))
        command.add_argument("--nesting", action="store_true", help="let sandboxes be made in it")
        command.add_argument("--user")
        command.add_argument("--workdir")
        command.set_defaults(run=run)
        if name == "run":
            command.add_argument("--entrypoint", metavar="PROGRAM", help="instead of the image's, and of its command")
            command.add_argument(
                "command", nargs=argparse.REMAINDER, help="the command and its arguments (default: the image's)"
            )
        else:
            command.add_argument("kept", nargs="?", metavar="NAME", help="begin as this kept sandbox ended")
    _add_kept(commands)
    add_build(commands)
    add_commands(commands)
    add_registries(commands)
    add_compose(commands)
    return words


def _add_kept(commands: Any) -> None:
    ps = commands.add_parser("ps", help="list the sandboxes that --sandbox-keep has kept")
    ps.set_defaults(run=_ps)
    rm = commands.add_parser("rm", help="remove kept sandboxes")
    which = rm.add_mutually_exclusive_group(required=True)
    which.add_argument("names", nargs="*", default=[], metavar="NAME")
    which.add_argument("--all", action="store_true", help="all that are kept")
    rm.set_defaults(run=_rm)


def _doctor(_options: argparse.Namespace) -> int:
    from pytest_sandbox.cli.doctor import doctor

    return doctor(print)


def _run(options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime import Engine

    spec = _spec(options)
    with Engine.open(watched()) as engine:
        argv = _argv(options, engine.images.config(spec.image))
        with engine.create(spec) as sandbox:
            outcome = sandbox.run(argv, input=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)
    return _status(outcome.returncode)


def _argv(options: argparse.Namespace, config: Mapping[str, Any]) -> list[str]:
    """Return what is to run, as Docker makes it of what was given and of the image's configuration."""
    from pytest_sandbox_runtime.errors import SpecError

    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    if options.entrypoint is None:
        argv = [*(config.get("Entrypoint") or ()), *(words or config.get("Cmd") or ())]
    else:
        argv = [*filter(None, [options.entrypoint]), *words]
    if not argv:
        hint = f"say it: pytest-sandbox run --image {options.image} -- COMMAND"
        raise SpecError(f"there is nothing to run: {options.image} has no command of its own", hint=hint)
    return argv


def _shell(options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime import Engine

    spec, settings = _spec(options), watched()
    if options.kept is not None:
        from pytest_sandbox_runtime import kept

        one = kept.get(_store(), options.kept)
        spec, settings = one.spec, watched(show=one.show, needed=one.needed, on_disk=True, kept=one.path)
    with Engine.open(settings) as engine, engine.create(spec) as sandbox:
        return _status(sandbox.shell())


def _ps(_options: argparse.Namespace) -> int:
    from datetime import timedelta

    from pytest_sandbox_runtime import kept

    print(f"{'NAME':<20} {'AGE':>8} {'SIZE':>8}  IMAGE, TEST")
    for one in kept.find(_store()):
        age = timedelta(seconds=round(time.time() - one.made()))
        print(f"{one.name:<20} {age!s:>8} {one.size() >> 10:>6} K  {one.spec.image}, {one.about}")
    return 0


def _rm(options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime import kept

    store = _store()
    for one in kept.find(store) if options.all else [kept.get(store, name) for name in options.names]:
        kept.remove(one)
    return 0


def _store() -> str:
    from pytest_sandbox_runtime.images.home import default_store

    return default_store(os.environ)


def _status(returncode: int) -> int:
    """Return the exit status by which a shell says how a command ended."""
    return returncode if returncode >= 0 else 128 - returncode


def _spec(options: argparse.Namespace) -> SandboxSpec:
    from pytest_sandbox_runtime import SandboxSpec

    return SandboxSpec(
        image=image_named(options.image),
        memory=options.memory,
        network=options.network,
        nesting=options.nesting,
        user=options.user,
        workdir=options.workdir,
    )
