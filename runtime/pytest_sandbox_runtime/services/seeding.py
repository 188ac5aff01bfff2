"""PYTEST_DONT_REWRITE. Services that are filled once: what that left is a layer, and each test has a copy."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import ImageError, ServiceError
from pytest_sandbox_runtime.images.documents import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.live_network import LiveNetwork
    from pytest_sandbox_runtime.services.live_service import LiveService
    from pytest_sandbox_runtime.specs.image import Image
    from pytest_sandbox_runtime.specs.service import Seed, Service

_CHUNK = 1 << 20
# What looks the same in every process.
_PLAIN = (str, bytes, int, float, type(None), os.PathLike)


def seeded(engine: Engine, service: Service, network: LiveNetwork) -> Service:
    """Return ``service`` without its seeds, on an image that has what they left; made where the store lacks it."""
    if service.image.is_host:
        hint = "start from an image: Image.debian('bookworm').apt(...), or a ready-made service"
        raise ImageError(f"{service} is a copy of this machine, which cannot become an image to seed", hint=hint)
    image = service.image
    for seed in service.seeds:
        image = _seeded(engine, replace(service, image=image, seeds=()), seed, network)
    return replace(service, image=image, seeds=())


def _seeded(engine: Engine, service: Service, seed: Seed, network: LiveNetwork) -> Image:
    key = _key(engine.images.build(service.image).digest, service, seed)
    return engine.images.once(key, f"seeding {service}", lambda: _plant(engine, service, seed, network))


def _plant(engine: Engine, service: Service, seed: Seed, network: LiveNetwork) -> Image:
    from pytest_sandbox_runtime.services.starting import start_with_dependencies

    with start_with_dependencies(engine, service, network) as live:
        _act(live, seed)
        status = live.stop()
        if status not in (0, -live.stop_signal):
            raise ServiceError(
                f"{service} did not end cleanly after it was seeded: status {status}\n{live.logs()[-2000:]}"
            )
        return live.sandbox.commit()


def _act(live: LiveService, seed: Seed) -> None:
    if callable(seed.act):
        seed.act(live)
    else:
        live.run(seed.act, check=True)


def identity(service: Service) -> str:
    """Return what tells ``service`` from others, the same in every process of a run."""
    said = [repr(replace(service, seeds=(), depends_on=())), *map(identity, service.depends_on)]
    said += [repr((_code(seed.act), [_content(path) for path in seed.inputs])) for seed in service.seeds]
    return hashlib.sha256("\0".join(said).encode()).hexdigest()


def _key(digest: str, service: Service, seed: Seed) -> str:
    said = {
        "image": digest,
        "command": service.command,
        "env": [list(pair) for pair in service.env],
        "sandbox": [[name, repr(value)] for name, value in service.sandbox],
        "act": _code(seed.act),
        "inputs": [_content(path) for path in seed.inputs],
    }
    return hashlib.sha256(canonical(said)).hexdigest()


def _code(act: Any) -> Any:
    """Return what tells the code of ``act`` from other code: its source, and the values that it closes over."""
    if not callable(act):
        return act
    if isinstance(act, functools.partial):
        return [_code(act.func), repr(act.args), repr(sorted(act.keywords.items()))]
    try:
        source = textwrap.dedent(inspect.getsource(act))
    except (OSError, TypeError) as error:
        raise ServiceError(f"the code of the seed {act!r} cannot be read: {error}") from error
    code, values = getattr(act, "__code__", None), getattr(act, "__closure__", None) or ()
    plain = [cell.cell_contents for cell in values if isinstance(cell.cell_contents, _PLAIN)]
    # Of two on one line the source is the same.
    return [source, "" if code is None else code.co_code.hex(), repr(plain), repr(getattr(act, "__defaults__", None))]


def _content(path: str) -> str:
    digest = hashlib.sha256()
    for name in _files(path):
        digest.update(os.fsencode(os.path.relpath(name, path)) + b"\0")
        with open(name, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (os.path.join(folder, name) for name in sorted(names))
