"""PYTEST_DONT_REWRITE. The builder: layer after layer, each looked for in the cache, and made once by who is first.

What only layers need is imported when there is one, as most first sandboxes of a run are waited for.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import BuildError, ImageError, SandboxError
from pytest_sandbox_runtime.images.building.bases import base_of
from pytest_sandbox_runtime.images.building.cache import Cache, key_from, parts_of
from pytest_sandbox_runtime.images.building.telling import shortened, teller
from pytest_sandbox_runtime.images.places import command_on, explained, remove_tree
from pytest_sandbox_runtime.rootfs.layer import OWN_FILES
from pytest_sandbox_runtime.specs import Dockerfile, Image, Unpacked
from pytest_sandbox_runtime.specs.origin import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.images.building.chain import Chain
    from pytest_sandbox_runtime.images.building.shared import SharedLayers
    from pytest_sandbox_runtime.images.config import Step
    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.specs import Layer, SandboxSpec

_MOST_AT_ONCE = os.cpu_count() or 1
# A step's command may be a script of many lines.
_WIDTH = 120
# As many digits of an id as Docker shows.
_SHORT = 12


@dataclass(frozen=True)
class _Place:
    """Where in a build a step is, as it is told."""

    number: int
    of: int
    call: str

    def __str__(self) -> str:
        return f"step {self.number}/{self.of} {shortened(self.call, _WIDTH)}"


class Builder:
    """Builds for one engine, each image once; from several threads at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store
        self._telling = teller(engine.settings)
        rebuild, run = engine.settings.rebuild, os.path.basename(engine.run_directory)
        self._cache = Cache(self._store, run, rebuild=rebuild, telling=self._telling)
        self._chains: dict[Image, Future[Chain]] = {}
        self._lock = threading.Lock()
        self._explain = engine.settings.explain

    def resolved(self, spec: SandboxSpec) -> SandboxSpec:
        """Return ``spec`` on its unpacked image, with what the image's configuration says where it says nothing."""
        chain = self.chain(spec.image)
        env = dict(pair.partition("=")[::2] for pair in chain.config.get("Env") or ())
        return replace(
            spec,
            image=Image(Unpacked(chain.stack.roots, str(spec.image))),
            env={**env, **dict(spec.env)},
            user=spec.user if spec.user is not None else chain.config.get("User") or None,
            workdir=spec.workdir or chain.config.get("WorkingDir") or None,
        )

    def build(self, image: Image) -> Descriptor:
        """Return what points to the manifest of ``image``, made and stored; raises ImageError."""
        chain = self.chain(image)
        if chain.is_directory:
            hint = "pack it: tar -C ROOT -cf root.tar ., and name the tar"
            raise ImageError(f"{image} is a directory, of which no image can be made", hint=hint)
        return chain.write(self._store)

    def once(self, key: str, what: str, make: Callable[[], Image]) -> Image:
        """Return the image that ``make`` made for ``key``, by this process or any other; ``what`` is it called."""
        if (made := self._cache.find(key)) is None:
            with self._cache.alone(key, what):
                made = self._cache.find(key)
                if made is None:
                    with self._telling(what):
                        made = self.build(make())
                    self._cache.note(key, made)
        return Image.pull(made.digest)

    def commit(self, image: Image, upper: str) -> Descriptor:
        """Return what points to an image of ``image`` and what changed in a sandbox of it, its upper directory."""
        chain = self.chain(image)
        if chain.is_directory:
            raise ImageError(f"{image} is a directory, on which no layer can be put", hint="pack it as a tar")
        layer = self._store.write_layer(upper, chain.stack, OWN_FILES)
        stack = self._store.unpack_layer(layer, layer.digest, chain.stack)
        return chain.with_layer(layer, stack, "commit()", chain.config).write(self._store)

    def chain(self, image: Image) -> Chain:
        """Return the layers of ``image``, those that are missing made; raises ImageError."""
        with self._lock:
            future = self._chains.get(image)
            is_mine = future is None
            if future is None:
                future = self._chains[image] = Future()
        if is_mine:
            try:
                with explained(self._store.path):
                    future.set_result(self._make(image))
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def _make(self, image: Image) -> Chain:
        if isinstance(image.base, Dockerfile):
            from pytest_sandbox_runtime.images.dockerfile import resolve

            return self.chain(resolve(image, base_config=lambda base: self.chain(base).config))
        if not image.layers:
            return base_of(image.base, self._store, self._engine.images, self._telling)
        from concurrent.futures import ThreadPoolExecutor

        from pytest_sandbox_runtime.images.building.inputs import others

        with ThreadPoolExecutor(_MOST_AT_ONCE) as side:
            for other in others(image.layers):
                # Met again where it is used, and then whatever went wrong is told.
                side.submit(self.chain, other)
            return self._with_layers(base_of(image.base, self._store, self._engine.images, self._telling), image.layers)

    def _with_layers(self, chain: Chain, layers: tuple[Layer, ...]) -> Chain:
        from pytest_sandbox_runtime.images.building.inputs import others
        from pytest_sandbox_runtime.images.building.telling import told
        from pytest_sandbox_runtime.images.config import steps

        if chain.is_directory:
            raise ImageError(f"layers cannot be put on the directory {chain.stack.roots[0]}", hint="pack it as a tar")
        made = steps(layers, chain.config)
        for number, step in enumerate(made, 1):
            for other in others((step.layer,)):
                self.chain(other)
            with _located(step.layer):
                chain = self._stack(chain, step, _Place(number, len(made), told(step.layer)))
        return chain

    def _stack(self, chain: Chain, step: Step, place: _Place) -> Chain:
        from pytest_sandbox_runtime.images.building.inputs import digest_of_inputs
        from pytest_sandbox_runtime.images.config import author_of

        if not step.changes_files:
            chain = replace(chain, author=author_of(Image(layers=(step.layer,)), chain.author))
            return chain.with_config(step.config, place.call)
        parts = parts_of(chain, step, digest_of_inputs(step, self.chain))
        key = key_from(step, parts)
        layer = self._cache.find(key)
        if layer is None:
            with self._cache.alone(key, str(place)):
                layer = (
                    self._cache.find(key)
                    or self._shared_layer(key, step, parts, place)
                    or self._make_layer(key, chain, step, parts, place)
                )
                # Who waits for it finds it sent.
                self._offer(key, layer)
        self._offer(key, layer)
        stack = self._store.unpack_layer(layer, layer.digest, chain.stack)
        return chain.with_layer(layer, stack, place.call, step.config)

    @functools.cached_property
    def _shared(self) -> SharedLayers | None:
        settings = self._engine.settings
        sources = () if settings.rebuild or settings.offline else settings.cache_from
        if not sources and settings.cache_to is None:
            return None
        if settings.cache_to is not None:
            what = f"layers cannot be sent to {settings.cache_to}"
            self._engine.images.check_online(what, hint="leave out --sandbox-cache-to and PYTEST_SANDBOX_CACHE_TO")
        from pytest_sandbox_runtime.images.building.shared import SharedLayers

        registries = self._engine.images.registries
        return SharedLayers(self._store, registries, sources, settings.cache_to, self._telling)

    def _offer(self, key: str, layer: Descriptor) -> None:
        if self._shared is not None:
            self._shared.offer(key, layer)

    def _shared_layer(self, key: str, step: Step, parts: dict[str, Any], place: _Place) -> Descriptor | None:
        found = None if self._shared is None else self._shared.find(key, str(place))
        return None if found is None else self._cache.remember(key, step, parts, found)

    def _make_layer(self, key: str, chain: Chain, step: Step, parts: dict[str, Any], place: _Place) -> Descriptor:
        from pytest_sandbox_runtime.specs import Download

        if isinstance(step.layer, Download) or (step.run is not None and step.run.network == "host"):
            self._engine.images.check_online(
                f"{place} is not in the store and has the network",
                hint="build it once with the network, or give it none",
            )
        why = f": {self._cache.reason(step, parts)}" if self._explain else ""
        try:
            with self._telling(f"{place}{why}"), self._upper(chain, step) as upper:
                layer = self._store.write_layer(upper, chain.stack, OWN_FILES if step.run is not None else ())
        except BuildError as error:
            raise self._failed(error, chain, place) from None
        return self._cache.remember(key, step, parts, layer)

    @contextlib.contextmanager
    def _upper(self, chain: Chain, step: Step) -> Iterator[str]:
        """Yield a directory with all that ``step`` changes, as an overlay's upper one."""
        from pytest_sandbox_runtime.images.building.running import ran

        roots = chain.stack.roots
        if step.run is not None:
            image = Image(Unpacked(roots, "the image so far", on_disk=True))
            with ran(self._engine, image, step, roots, self._roots_of) as upper:
                yield upper
            return
        with self._staged(step, roots) as upper:
            yield upper

    @contextlib.contextmanager
    def _staged(self, step: Step, roots: tuple[str, ...]) -> Iterator[str]:
        from tempfile import mkdtemp

        from pytest_sandbox_runtime.images.building.staged import stage
        from pytest_sandbox_runtime.images.mapped import worker

        others = getattr(step.layer, "from_", None)
        place = mkdtemp(prefix="step-", dir=self._engine.run_directory)
        try:
            os.chmod(place, 0o755)
            worker().call(stage, step, place, roots, () if others is None else self._roots_of(others))
            yield place
        finally:
            remove_tree(place)

    def _roots_of(self, image: Image) -> tuple[str, ...]:
        return self.chain(image).stack.roots

    def _failed(self, error: BuildError, chain: Chain, place: _Place) -> BuildError:
        return BuildError(f"{place} failed: {error.message}", hint=error.hint or self._way_in(chain))

    def _way_in(self, chain: Chain) -> str:
        """Say how to look around in what ``chain`` is."""
        try:
            image = chain.write(self._store).digest.partition(":")[2][:_SHORT]
        except SandboxError as error:
            return error.hint  # a full disk may be why the step has failed
        return f"look around in the state before it: {command_on(self._store.path, f'shell --image {image}')}"


@contextlib.contextmanager
def _located(layer: Layer) -> Iterator[None]:
    """Say of what goes wrong with ``layer`` where it was written down."""
    try:
        yield
    except ImageError as error:
        origin = origin_of(layer)
        if not origin:
            raise
        raise type(error)(f"{origin}: {error.message}", hint=error.hint) from error.__cause__
