"""``pytest-sandbox pull|push|login|logout|search-tags``: Docker's and podman's words, with registries.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pytest_sandbox.cli.images import adder
from pytest_sandbox_runtime.errors import SpecError

if TYPE_CHECKING:
    import argparse

    from pytest_sandbox_runtime.images.images import Images

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_HUB = "docker.io"


def add_registries(commands: Commands) -> None:
    """Add the commands that deal with registries."""
    add = adder(commands)
    pull = add("pull", "fetch images from registries", _pull)
    pull.add_argument("image", nargs="+", help="for example debian:12 or ghcr.io/owner/name:tag")
    pull.add_argument("--platform", help="for example linux/arm64 (default: this machine's)")
    push = add("push", "send an image to a registry", _push)
    push.add_argument("image", help="a name or an id of the store")
    push.add_argument("name", nargs="?", help="where to, for example localhost:5000/name:tag (default: its own name)")
    tags = add("search-tags", "list the tags of a repository", _search_tags)
    tags.add_argument("repository", help="for example debian or ghcr.io/owner/name")
    tags.add_argument("text", nargs="?", default="", help="only tags with this in them")
    _add_logins(commands)


def _add_logins(commands: Commands) -> None:
    login = commands.add_parser("login", help="write down credentials for a registry, if it takes them")
    login.add_argument("registry", nargs="?", default=_HUB, help=f"default: {_HUB}")
    login.add_argument("-u", "--username")
    login.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    login.set_defaults(run=_login)
    logout = commands.add_parser("logout", help="forget the credentials for a registry")
    logout.add_argument("registry", nargs="?", default=_HUB, help=f"default: {_HUB}")
    logout.set_defaults(run=_logout)


def _pull(images: Images, options: argparse.Namespace) -> int:
    for image in options.image:
        print(images.pull(image, platform=options.platform).digest)
    return 0


def _push(images: Images, options: argparse.Namespace) -> int:
    print(images.push(options.image, options.name).digest)
    return 0


def _search_tags(images: Images, options: argparse.Namespace) -> int:
    for tag in images.tags(options.repository):
        if options.text in tag:
            print(tag)
    return 0


def _login(options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime.images.registry.login import host_of, log_in

    host = host_of(options.registry)
    if options.password_stdin:
        if options.username is None:
            raise SpecError("--password-stdin needs a --username")
        username, password = options.username, sys.stdin.read().rstrip("\r\n")
    else:
        username, password = _asked(host, options.username)
    if not username or not password:
        raise SpecError("neither the name nor the password can be empty")
    print(f"Logged in to {host}; written to {log_in(os.environ, host, username, password)}")
    return 0


def _asked(host: str, username: str | None) -> tuple[str, str]:
    if not sys.stdin.isatty():
        hint = "pipe the password in: pytest-sandbox login -u NAME --password-stdin"
        raise SpecError("there is no terminal to ask for a password", hint=hint)
    from getpass import getpass

    username = username or input(f"Username for {host}: ")
    return username, getpass(f"Password of {username} for {host}: ")


def _logout(options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime.images.registry.login import host_of, log_out

    host = host_of(options.registry)
    place = log_out(os.environ, host)
    print(f"Logged out of {host}; removed from {place}" if place else f"There was no login to {host}")
    return 0
