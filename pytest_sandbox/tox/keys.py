"""The keys of an environment in tox's configuration, and what was said with them. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, List  # noqa: UP035

from tox.report import HandledError
from tox.tox_env.errors import Fail

from pytest_sandbox.image_words import WORDS, image_named, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tox.config.sets import EnvConfigSet

    from pytest_sandbox_runtime.specs import Image, Mount, Network

_PREFIX = "sandbox_"
SERVICES = "sandbox_services"
# tox reads list[str] from 4.32 on.
_STRINGS = List[str]  # noqa: UP006
_LIMITS = ("enforce", "best-effort")
_NETWORKS = ("none", "host", "internet")
_KEYS: dict[str, tuple[Any, Any, str]] = {
    "sandbox_image": (str, "host", f"what the commands run in: {WORDS}"),
    "sandbox_network": (str, "none", "none, host, internet, or names with ports that the commands may reach"),
    "sandbox_keep": (_STRINGS, [], "paths in which the commands change the files themselves, beside env_dir"),
    "sandbox_show": (_STRINGS, [], "paths of this machine, otherwise hidden, that its copies show"),
    "sandbox_memory": (str, "", "the most memory that the commands may use together, for example 512M"),
    "sandbox_cpus": (float, None, "how many processors the commands may use together"),
    "sandbox_pids": (int, None, "how many processes the commands may have"),
    "sandbox_limits": (str, "enforce", "enforce, or best-effort: start without limits that cannot be enforced here"),
    SERVICES: (_STRINGS, [], "services that are up while the commands run, each of a section [sandbox:NAME]"),
}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the commands of an environment are to run in."""

    image: Image
    network: str | Network
    keep: tuple[Mount, ...]
    show: tuple[str, ...]
    limits: dict[str, Any]
    best_effort_limits: bool


def add_keys(conf: EnvConfigSet) -> None:
    """Declare the keys of an environment."""
    for name, (of_type, default, description) in _KEYS.items():
        conf.add_config(name, of_type=of_type, default=default, desc=description)


def check_keys(conf: EnvConfigSet, *, is_sandboxed: bool) -> None:
    """Raise Fail where a key has no meaning: it is none, or it is about a sandbox and the environment has none."""
    from pytest_sandbox_runtime.suggestions import did_you_mean

    given = {key for loader in conf.loaders for key in loader.found_keys()}
    for key in sorted(key for key in given if key.startswith(_PREFIX)):
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS, f"there are {', '.join(_KEYS)}")
            raise Fail(f"{key} of environment {conf.name} is no key\n  hint: {hint}")
        # Who says runner = virtualenv beside them may have inherited them.
        if key != SERVICES and not is_sandboxed and "runner" not in given:
            raise Fail(f"{key} of environment {conf.name} is for a sandbox\n  hint: runner = sandbox gives it one")


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Have an error fail the environment, with what is at fault."""
    from pytest_sandbox_runtime.errors import SandboxError

    try:
        yield
    except (SandboxError, HandledError, TypeError, ValueError) as error:
        raise Fail(f"{what}: {error}") from error


def services_of(conf: EnvConfigSet) -> tuple[str, ...]:
    """Return the names of the services that are wanted; raises Fail."""
    with blamed(f"{SERVICES} of environment {conf.name}"):
        return tuple(dict.fromkeys(name for line in conf[SERVICES] for name in line.split()))


def wanted_of(conf: EnvConfigSet, root: str) -> Wanted:
    """Return what the commands of an environment are to run in; raises Fail. Paths are relative to ``root``."""
    said: dict[str, Any] = {}
    for key, read in _READ.items():
        with blamed(f"{key} of environment {conf.name}"):
            said[key.removeprefix(_PREFIX)] = read(conf[key], root)
    limits = {name: said.pop(name) for name in ("memory", "cpus", "pids")}
    return Wanted(best_effort_limits=said.pop("limits"), limits=limits, **said)


def _image(words: str, root: str) -> Image:
    return image_named(words if words == "host" else path_of(words, root) or words)


def _network(words: str, _root: str) -> str | Network:
    from pytest_sandbox_runtime.errors import SpecError
    from pytest_sandbox_runtime.specs import Network
    from pytest_sandbox_runtime.suggestions import did_you_mean

    if words in ("none", "host"):
        return words
    if words == "internet":
        return Network(internet=True)
    places = tuple(words.replace(",", " ").split())
    for place in places:
        if ":" not in place:
            hint = did_you_mean(place, _NETWORKS, "for example api.example.org:443")
            raise SpecError(f"{place!r} is none of {', '.join(_NETWORKS)}, and no name with a port", hint=hint)
    return Network(allow=places)


def _keep(paths: list[str], root: str) -> tuple[Mount, ...]:
    from pytest_sandbox_runtime.errors import SpecError
    from pytest_sandbox_runtime.specs import Mount

    mounts = []
    for path in paths:
        place = os.path.realpath(os.path.join(root, os.path.expanduser(path)))
        if path.endswith("/"):
            os.makedirs(place, exist_ok=True)
        elif not os.path.exists(place):
            raise SpecError(f"{path} is not there", hint=f"{path}/ is a directory, made where it is missing")
        mounts.append(Mount(source=place, target=place, read_only=False))
    return tuple(mounts)


def _show(paths: list[str], _root: str) -> tuple[str, ...]:
    return tuple(os.path.expanduser(path) for path in paths)


def _limit(name: str) -> Callable[[Any, str], Any]:
    def check(value: Any, _root: str) -> Any:
        from pytest_sandbox_runtime.specs import SandboxSpec

        words: dict[str, Any] = {name: None if value == "" else value}
        return getattr(SandboxSpec(**words), name)

    return check


def _is_best_effort(word: str, _root: str) -> bool:
    if word not in _LIMITS:
        raise ValueError(f"{word!r} is none of {', '.join(_LIMITS)}")
    return word == "best-effort"


_READ: dict[str, Callable[[Any, str], Any]] = {
    "sandbox_image": _image,
    "sandbox_network": _network,
    "sandbox_keep": _keep,
    "sandbox_show": _show,
    "sandbox_memory": _limit("memory"),
    "sandbox_cpus": _limit("cpus"),
    "sandbox_pids": _limit("pids"),
    "sandbox_limits": _is_best_effort,
}
