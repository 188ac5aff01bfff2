"""PYTEST_DONT_REWRITE. The images of a store, as a person deals with them: by name, or by the begin of an id."""

from __future__ import annotations

import functools
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import ImageError, OfflineError, RegistryError
from pytest_sandbox_runtime.images.layout import canonical_name
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.stack import EMPTY, Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_sandbox_runtime.images.building.builder import Builder
    from pytest_sandbox_runtime.images.building.telling import Amount, Telling
    from pytest_sandbox_runtime.images.lock import Lock
    from pytest_sandbox_runtime.images.manifest import Descriptor, ImageConfig, Manifest
    from pytest_sandbox_runtime.images.platforms import Platform
    from pytest_sandbox_runtime.images.pruning import Pruned, Usage
    from pytest_sandbox_runtime.images.registry.client import Registries
    from pytest_sandbox_runtime.images.store import Store
    from pytest_sandbox_runtime.images.summaries import HistoryStep, ImageDetails, ImageSummary
    from pytest_sandbox_runtime.specs import Debian, Image

_ID = re.compile(r"(?:sha256:)?([a-f0-9]{4,64})")
# Shorter ones are words, too.
_SURELY_ID = re.compile(r"sha256:[a-f0-9]{4,64}|[a-f0-9]{12,64}")
_MOST_NAMED = 5


@dataclass(frozen=True)
class BuiltImage:
    """An image that is in the store; ``reference`` is its name, None where it has none."""

    descriptor: Descriptor
    reference: Reference | None = None

    @property
    def digest(self) -> str:
        """The digest of its manifest."""
        return self.descriptor.digest

    def __str__(self) -> str:
        return self.reference.familiar if self.reference else self.digest


class Images:
    """The images in ``store``. One is named by a reference, by an id or digest or the begin of one, or by itself."""

    def __init__(
        self,
        store: Store,
        builder: Callable[[], Builder] | None = None,
        registries: Callable[[], Registries] | None = None,
        *,
        offline: bool = False,
        lock: Lock | None = None,
        telling: Telling | None = None,
    ) -> None:
        self._store = store
        self._builder = builder
        self._speaking = registries
        self._offline = offline
        self._lock = lock
        self._telling = telling or _silent
        self._layout = store.images

    def __repr__(self) -> str:
        return f"Images({self._store!r})"

    def build(self, image: Image, *, tag: str | None = None) -> BuiltImage:
        """Make what is missing of ``image``, and store it, under the name ``tag`` where one is given."""
        if self._builder is None:
            raise ImageError("nothing is built without an engine", hint="use the images of Engine.open()")
        built = BuiltImage(self._builder().build(image))
        return built if tag is None else self.tag(built, tag)

    def config(self, image: Image) -> dict[str, Any]:
        """Return the configuration of ``image`` in OCI's words, made where it is missing; empty for directories."""
        return {} if self._builder is None or image.is_host else dict(self._builder().chain(image).config)

    def once(self, key: str, what: str, make: Callable[[], Image]) -> Image:
        """Return the image that ``make`` made for ``key``, by this process or any other; ``what`` is it called."""
        assert self._builder is not None  # an engine asks
        return self._builder().once(key, what, make)

    def check_online(self, what: str, *, hint: str) -> None:
        """Raise OfflineError, saying that it needs ``what``, where the network may not be used."""
        if self._offline:
            raise OfflineError(f"{what}, and this run is offline", hint=hint)

    def pull(self, reference: str, *, platform: str | None = None) -> BuiltImage:
        """Fetch what ``reference`` stands for now at its registry, as far as it is not there, and give it that name.

        ``platform`` is such as linux/arm64, None for this machine's. What has a digest and is there is not asked for.
        Raises RegistryError where the registry does not have it, or does not give it.
        """
        from pytest_sandbox_runtime.images.platforms import Platform

        wanted, name = Platform.parse(platform) if platform else None, Reference.parse(reference).with_default_tag()
        self._check_online(name)
        return self._pull(name, wanted, is_named=True)

    def pull_missing(self, reference: str, *, platform: str | None = None) -> BuiltImage:
        """Return the image that is meant, pulled only where it is not there; one for another machine gets no tag."""
        from pytest_sandbox_runtime.images.platforms import Platform
        from pytest_sandbox_runtime.images.registry.pulled import is_for, pulled

        wanted = Platform.parse(platform) if platform else None
        given, reference = reference, self._locked(reference)
        absent = None
        try:
            found = self.get(reference)
            if wanted is None or is_for(self._store, found.descriptor, wanted):
                return found
        except ImageError as error:
            if _SURELY_ID.fullmatch(reference):
                raise
            absent = error
        name = Reference.parse(reference).with_default_tag()
        if wanted is not None or name.digest is not None:
            there = pulled(self._store, name.canonical, wanted)
            if there is not None:
                return BuiltImage(there)
        self._check_online(name)
        try:
            return self._pull(name, wanted, is_named=wanted is None)
        except RegistryError as error:
            if reference != given:
                error.hint = f"{given} is locked to this; pytest --sandbox-lock=update takes what it is now"
            elif absent is not None:
                error.message = f"{absent.message}, and it cannot be pulled: {error.message}"
                error.hint = "; ".join(filter(None, (absent.hint, error.hint)))
            raise

    def locked_packages(self, base: Debian) -> Debian:
        """Return ``base`` with the day that its packages are locked to, if they are."""
        from pytest_sandbox_runtime.images.pinning import pinned_packages

        return base if self._lock is None else pinned_packages(base, self._lock)

    def _locked(self, reference: str) -> str:
        if self._lock is None:
            return reference
        from pytest_sandbox_runtime.images.pinning import pinned

        return pinned(reference, self._lock, self._layout, None if self._offline else lambda: self.registries)

    def push(self, image: BuiltImage | str, reference: str | None = None) -> Reference:
        """Send the image to a registry under ``reference``, or its own name, and return that with the digest.

        Raises RegistryError where the registry does not take it.
        """
        from pytest_sandbox_runtime.images.registry.meter import Meter
        from pytest_sandbox_runtime.images.registry.push import push

        found = self.get(image)
        self.check_online(f"{found} cannot be pushed", hint="unset PYTEST_SANDBOX_OFFLINE")
        name = Reference.parse(reference) if reference is not None else found.reference
        if name is None:
            raise ImageError(f"{found} has no name to be pushed under", hint="give one")
        with self._telling(f"push {name.familiar}") as amount:
            return push(self._layout, self.registries, found.descriptor, name, Meter(amount))

    def tags(self, repository: str) -> tuple[str, ...]:
        """Return all tags of a repository, versions in their order; raises RegistryError."""
        self.check_online(f"nobody can be asked for the tags of {repository}", hint="unset PYTEST_SANDBOX_OFFLINE")
        return self.registries.places(Reference.parse(repository))[-1].tags()

    def _check_online(self, name: Reference) -> None:
        hint = f"once with the network: pytest-sandbox pull {name.familiar}"
        self.check_online(f"{name.familiar} is not in the store", hint=hint)

    def _pull(self, reference: Reference, platform: Platform | None, *, is_named: bool) -> BuiltImage:
        from pytest_sandbox_runtime.images.places import explained
        from pytest_sandbox_runtime.images.registry.meter import Meter
        from pytest_sandbox_runtime.images.registry.pull import pull
        from pytest_sandbox_runtime.images.registry.pulled import name_of

        with explained(self._store.path), self._telling(f"pull {reference.familiar}") as amount:
            found = pull(self._store, self.registries, reference, platform, Meter(amount))
            name = reference if is_named and not reference.digest else name_of(reference, found)
            self._layout.tag(name, found, self._store.lease)
        return BuiltImage(found, name)

    @functools.cached_property
    def registries(self) -> Registries:
        """Those that are spoken to, by the names of images."""
        from pytest_sandbox_runtime.images.registry.client import Registries

        return self._speaking() if self._speaking else Registries(os.environ)

    def load(
        self,
        path: str,
        *,
        platform: Platform | None = None,
        max_bytes: int | None = None,
        max_ratio: int | None = None,
    ) -> list[BuiltImage]:
        """Store the images in an archive (OCI's, Docker's, or a root file system's tar) or a layout's directory.

        What one file of it holds may be at most ``max_bytes``, 64 GiB if nothing is said, and ``max_ratio`` times what
        it is packed into, 2000.
        """
        from pytest_sandbox_runtime.images.archive import load
        from pytest_sandbox_runtime.images.limits import Limits

        given = {"max_bytes": max_bytes, "max_ratio": max_ratio}
        limits = Limits(**{name: value for name, value in given.items() if value is not None})
        loaded = load(self._store, path, platform=platform, limits=limits)
        return [BuiltImage(descriptor, reference) for reference, descriptor in loaded]

    def save(
        self,
        image: BuiltImage | str | Sequence[BuiltImage | str],
        target: str | IO[bytes],
        *,
        format: str = "oci",  # noqa: A002 - the word of docker and podman
        compression: str = "none",
    ) -> None:
        """Write one image, or several, into the archive ``target``; ``format`` docker is what ``docker load`` reads."""
        from pytest_sandbox_runtime.images.export import save

        images = [image] if isinstance(image, (str, BuiltImage)) else image
        found = [self.get(one) for one in images]
        pairs = [(one.reference, one.descriptor) for one in found]
        save(self._layout, pairs, target, format=format, compression=compression)

    def get(self, image: BuiltImage | str) -> BuiltImage:
        """Return the image that is meant, which stays until the store is closed; raises ImageError where none is."""
        found = image if isinstance(image, BuiltImage) else self._find(image)
        if not self._layout.has(found.digest, found.descriptor.size, self._store.lease):
            raise ImageError(f"the store has no image {found}", hint=self._what_there_is(str(found)))
        return found

    def list(self) -> tuple[ImageSummary, ...]:
        """Return all images, by name, those that lost theirs last."""
        found = [self._summary(one) for one in self._layout.index().manifests]
        return tuple(
            sorted(filter(None, found), key=lambda one: (one.reference is None, str(one.reference), one.digest))
        )

    def tag(self, image: BuiltImage | str, reference: str) -> BuiltImage:
        """Give the image one more name; who had that name loses it."""
        descriptor = self.get(image).descriptor
        name = Reference.parse(reference).with_default_tag()
        if name.digest:
            raise ImageError(
                f"{reference} has a digest, which nobody can give to an image", hint="leave the digest out"
            )
        self._layout.tag(name, descriptor, self._store.lease)
        return BuiltImage(descriptor.bare(), name)

    def remove(self, image: BuiltImage | str) -> tuple[str, ...]:
        """Take its name from an image, and with its last name remove it; by id, all its names. Returns what went."""
        from pytest_sandbox_runtime.images.pruning import collect

        found = self._find(image) if isinstance(image, str) else image
        gone: list[str] = []

        def is_kept(one: Descriptor) -> bool:
            name = canonical_name(one)
            is_it = name == found.reference.canonical if found.reference else one.digest == found.digest
            if is_it:
                gone.append(name or one.digest)
            return not is_it

        self._layout.change(lambda there: [one for one in there if is_kept(one)])
        collect(self._store)
        return tuple(gone)

    def prune(self, *, older_than: float | None = None, max_bytes: int | None = None, tagged: bool = False) -> Pruned:
        """Remove what is not needed and not in use; see ``pruning.prune``."""
        from pytest_sandbox_runtime.images.pruning import prune

        return prune(self._store, older_than=older_than, max_bytes=max_bytes, tagged=tagged)

    def disk_usage(self) -> Usage:
        """Return what the store takes on disk."""
        from pytest_sandbox_runtime.images.pruning import disk_usage

        return disk_usage(self._store)

    def inspect(self, image: BuiltImage | str) -> ImageDetails:
        """Return all that is known of an image."""
        from pytest_sandbox_runtime.images.summaries import ImageDetails, LayerDetails

        descriptor, manifest, config = self._parts(image)
        names = [one for one in self._layout.index().manifests if one.digest == descriptor.digest]
        layers = []
        stack: Stack | None = EMPTY
        for one, diff_id in self._layout.layers_of(manifest):
            stack = self._store.find_layer(diff_id, stack) if stack else None
            place = stack.roots[0] if stack else None
            layers.append(LayerDetails(one.digest, diff_id, one.media_type, one.size, place))
        references = tuple(sorted(filter(None, map(_reference_of, names)), key=str))
        size = sum(one.size for one in layers)
        return ImageDetails(references, descriptor.digest, manifest.config.digest, size, config, tuple(layers))

    def history(self, image: BuiltImage | str) -> tuple[HistoryStep, ...]:
        """Return how the image came to be, the last step first."""
        from pytest_sandbox_runtime.images.summaries import HistoryStep

        _, manifest, config = self._parts(image)
        sizes = iter(manifest.layers)
        steps = []
        for number, step in enumerate(config.history, 1):
            size = 0 if step.empty_layer else getattr(next(sizes, None), "size", 0)
            is_last = number == len(config.history)
            steps.append(
                HistoryStep(
                    manifest.config.digest if is_last else None, step.created, step.created_by, size, step.comment
                )
            )
        return tuple(reversed(steps))

    def roots_of(self, image: BuiltImage | str) -> tuple[str, ...]:
        """Return the directories of the image's layers, the topmost first, unpacked where they are not yet."""
        return self._store.roots_of(self._parts(image)[1])

    def _parts(self, image: BuiltImage | str) -> tuple[Descriptor, Manifest, ImageConfig]:
        descriptor, manifest = self._layout.manifest_of(self.get(image).descriptor)
        return descriptor, manifest, self._layout.config_of(manifest)

    def _find(self, text: str) -> BuiltImage:
        by_id = _ID.fullmatch(text)
        reference = None if by_id and len(by_id[1]) == 64 else _parsed(text)
        if reference is not None:
            descriptor = self._layout.resolve(reference)
            if descriptor is not None:
                return BuiltImage(descriptor.bare(), reference.with_default_tag() if not reference.digest else None)
        found = self._by_id(by_id[1]) if by_id else {}
        if len(found) > 1:
            raise ImageError(f"{text} is the begin of {len(found)} ids", hint="write more of it")
        if not found:
            name = reference.familiar if reference else text
            raise ImageError(f"the store has no image {name}", hint=self._what_there_is(name))
        return BuiltImage(found.popitem()[1].bare())

    def _what_there_is(self, wanted: str) -> str:
        """Return the names that images have, those that are most like ``wanted`` first."""
        from difflib import get_close_matches

        names = [reference.familiar for reference in map(_reference_of, self._layout.index().manifests) if reference]
        if not names:
            return (
                "it has none with a name; pytest-sandbox build -t NAME makes one, and pytest-sandbox load takes one in"
            )
        near = get_close_matches(wanted, names, n=_MOST_NAMED, cutoff=0)
        more = f" and {len(names) - len(near)} more" if len(names) > len(near) else ""
        return f"it has {', '.join(near)}{more}; pytest-sandbox images lists all"

    def _by_id(self, begin: str) -> dict[str, Descriptor]:
        found = {}
        for one in self._layout.index().manifests:
            ids = (one.digest, getattr(self._summary(one), "id", ""))
            if any(digest[len("sha256:") :].startswith(begin) for digest in ids):
                found[one.digest] = one
        return found

    def _summary(self, one: Descriptor) -> ImageSummary | None:
        from pytest_sandbox_runtime.images.summaries import ImageSummary

        try:
            _, manifest = self._layout.manifest_of(one)
            config = self._layout.config_of(manifest)
        except ImageError:
            return None  # what another tool has put there, or took away
        size = sum(layer.size for layer in manifest.layers)
        return ImageSummary(_reference_of(one), one.digest, manifest.config.digest, config.created, size)


@contextmanager
def _silent(_line: str) -> Iterator[Amount]:
    yield lambda _there, _total: None


def _parsed(text: str) -> Reference | None:
    try:
        return Reference.parse(text)
    except ImageError:
        if _ID.fullmatch(text):
            return None
        raise


def _reference_of(descriptor: Descriptor) -> Reference | None:
    try:
        return Reference.parse(descriptor.name) if descriptor.name else None
    except ImageError:
        return None
