"""PYTEST_DONT_REWRITE. The documents of images, OCI's and Docker's: read with suspicion, written canonically."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.compressions import GZIP, NONE, ZSTD
from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.documents import Document, canonical, read_document
from pytest_sandbox_runtime.images.platforms import Platform, best

if TYPE_CHECKING:
    from typing_extensions import Self

_OCI = "application/vnd.oci.image."
_DOCKER = "application/vnd.docker."
OCI_INDEX = f"{_OCI}index.v1+json"
OCI_MANIFEST = f"{_OCI}manifest.v1+json"
OCI_CONFIG = f"{_OCI}config.v1+json"
OCI_LAYER = f"{_OCI}layer.v1.tar"
DOCKER_LIST = f"{_DOCKER}distribution.manifest.list.v2+json"
DOCKER_MANIFEST = f"{_DOCKER}distribution.manifest.v2+json"
DOCKER_CONFIG = f"{_DOCKER}container.image.v1+json"
DOCKER_LAYER = f"{_DOCKER}image.rootfs.diff.tar"
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)
_FOREIGN = (f"{_OCI}layer.nondistributable.", f"{_DOCKER}image.rootfs.foreign.")
_COMPRESSIONS = {
    OCI_LAYER: NONE,
    f"{OCI_LAYER}+gzip": GZIP,
    f"{OCI_LAYER}+zstd": ZSTD,
    DOCKER_LAYER: NONE,
    f"{DOCKER_LAYER}.gzip": GZIP,
    f"{DOCKER_LAYER}.zstd": ZSTD,
}
_SCHEMA_1 = f"{_DOCKER}distribution.manifest.v1"
_NEWER = "pull and push it again with a newer Docker, podman or skopeo"
_HISTORY = ("created", "created_by", "author", "comment")
REFERENCE_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


def compression_of(media_type: str) -> str:
    """Return how a layer of ``media_type`` is packed: gzip, zstd or none. Raises ImageError where it is no layer."""
    if media_type.startswith(_FOREIGN):
        why = "its licence lets nobody but its maker distribute it, so registries and archives do not have it"
        raise ImageError(f"a layer is foreign ({media_type}): {why}", hint="use an image without such layers")
    if media_type not in _COMPRESSIONS:
        hint = "layers are tars, plain or packed by gzip or zstd"
        raise ImageError(f"a layer is of the unknown media type {media_type!r:.200}", hint=hint)
    return _COMPRESSIONS[media_type]


def layer_type(compression: str) -> str:
    """Return the OCI media type of a layer that is packed by ``compression``."""
    return OCI_LAYER if compression == NONE else f"{OCI_LAYER}+{compression}"


@dataclass(frozen=True)
class Descriptor:
    """Points to a blob: its media type, its digest, its size."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    @classmethod
    def to(cls, media_type: str, data: bytes) -> Self:
        """Return the descriptor of ``data``."""
        return cls(media_type, digest_of(data), len(data))

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read one; raises ImageError."""
        return cls(
            document.text("mediaType"),
            document.digest("digest"),
            document.number("size"),
            Platform.of(document.document("platform")) if "platform" in document else None,
            document.pairs("annotations"),
            document.texts("urls"),
            document.text("artifactType", ""),
        )

    def as_dict(self) -> dict[str, object]:
        """Return it as documents have it."""
        more = {
            "annotations": dict(self.annotations),
            "urls": list(self.urls),
            "artifactType": self.artifact_type,
        }
        fields = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        platform = {} if self.platform is None else {"platform": self.platform.as_dict()}
        return {**fields, **platform, **{name: value for name, value in more.items() if value}}

    def bare(self) -> Self:
        """Copy it without annotations: as others point to the same blob."""
        return replace(self, annotations=())

    def annotated(self, **annotations: str) -> Self:
        """Copy it with these annotations."""
        return replace(self, annotations=tuple(sorted({**dict(self.annotations), **annotations}.items())))

    @property
    def name(self) -> str | None:
        """The reference that an index gives to it, in the words of containerd, else of the OCI."""
        notes = dict(self.annotations)
        return notes.get(CONTAINERD_NAME) or notes.get(REFERENCE_NAME)

    def named(self, reference: str) -> Self:
        """Copy it as an index has it under ``reference``: skopeo, umoci and podman read one name, Docker the other."""
        return self.annotated(**{REFERENCE_NAME: reference, CONTAINERD_NAME: reference})


@dataclass(frozen=True)
class Index:
    """An OCI image index, or a Docker manifest list: manifests of one image for several platforms."""

    manifests: tuple[Descriptor, ...] = ()
    media_type: str = OCI_INDEX
    annotations: tuple[tuple[str, str], ...] = ()

    def choose(self, platform: Platform | None = None) -> Descriptor:
        """Return the manifest for ``platform``, None for this machine's; raises ImageError where there is none."""
        number = best(platform, [descriptor.platform for descriptor in self.manifests])
        if number is None:
            there = ", ".join(sorted({str(one.platform) for one in self.manifests})) or "none"
            msg = f"the image is not for {platform or Platform.host()}, but for {there}"
            raise ImageError(msg, hint="name a platform that is there, or use another image")
        return self.manifests[number]

    def to_bytes(self) -> bytes:
        """Return its canonical form."""
        return _document(self, manifests=[one.as_dict() for one in self.manifests])


@dataclass(frozen=True)
class Manifest:
    """An OCI image manifest, or a Docker one of schema 2: a config and the layers, the lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...] = ()
    media_type: str = OCI_MANIFEST
    annotations: tuple[tuple[str, str], ...] = ()

    def to_bytes(self) -> bytes:
        """Return its canonical form."""
        return _document(self, config=self.config.as_dict(), layers=[one.as_dict() for one in self.layers])


def _document(of: Index | Manifest, **fields: object) -> bytes:
    notes = {"annotations": dict(of.annotations)} if of.annotations else {}
    return canonical({"schemaVersion": 2, "mediaType": of.media_type, **fields, **notes})


def parse_manifest(data: bytes, media_type: str | None = None, *, what: str = "the manifest") -> Index | Manifest:
    """Read an index or a manifest; ``media_type`` is what its descriptor, or the registry, says that it is.

    Raises ImageError, about ``what``, where it is neither, or not what it was said to be.
    """
    document = read_document(data, what)
    kind = _media_type(document, media_type)
    # A document that is both can be one thing for whoever signed it and another for who uses it: CVE-2021-41190.
    strange = "manifests" if kind in MANIFEST_TYPES else "layers"
    if strange in document or (kind in INDEX_TYPES and "config" in document):
        raise document.error(f"is of type {kind} and has {strange} or a config all the same")
    if document.number("schemaVersion") != 2:
        raise document.error(f"has schemaVersion {document.number('schemaVersion')}, and 2 is read")
    annotations = document.pairs("annotations")
    if kind in INDEX_TYPES:
        return Index(tuple(map(Descriptor.of, document.documents("manifests"))), kind, annotations)
    return Manifest(_config_of(document), _layers_of(document), kind, annotations)


def _media_type(document: Document, said: str | None) -> str:
    own = document.text("mediaType", "")
    kind = own or said or (OCI_INDEX if "manifests" in document else OCI_MANIFEST)
    if said and said != kind:
        raise document.error(f"was said to be {said}, and says itself that it is {kind}")
    if kind.startswith(_SCHEMA_1) or (not own and "fsLayers" in document):
        raise document.error("is of Docker's schema 1, which is not read", _NEWER)
    if kind not in INDEX_TYPES + MANIFEST_TYPES:
        raise document.error(f"is of the unknown type {kind!r:.200}", "images of OCI and of Docker's schema 2 are read")
    return kind


def _config_of(document: Document) -> Descriptor:
    config = Descriptor.of(document.document("config"))
    if config.media_type not in CONFIG_TYPES:
        raise document.error(
            f"is no image: its config is {config.media_type!r:.200}", "name an image of a root file system"
        )
    return config


def _layers_of(document: Document) -> tuple[Descriptor, ...]:
    layers = tuple(map(Descriptor.of, document.documents("layers")))
    for layer in layers:
        try:
            compression_of(layer.media_type)
        except ImageError as error:
            raise document.error(f"cannot be used: {error.message}", error.hint) from error
    return layers


@dataclass(frozen=True)
class History:
    """How a layer, or with ``empty_layer`` only the config, came to be."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read one."""
        created, by, author, comment = (document.text(name, "") for name in _HISTORY)
        return cls(created, by, author, comment, document.flag("empty_layer"))

    def as_dict(self) -> dict[str, object]:
        """Return it as configs have it."""
        return {name: getattr(self, name) for name in (*_HISTORY, "empty_layer") if getattr(self, name)}


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What an image is and how to run it; ``diff_ids`` are the digests of its layers' tars, the lowest first.

    ``config_json`` is the object ``config``, whatever is in it, as ``config`` gives it: Env, Cmd, User and so on.
    """

    platform: Platform = field(default_factory=Platform.host)
    created: str = ""
    author: str = ""
    config_json: str = "{}"
    diff_ids: tuple[str, ...] = ()
    history: tuple[History, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """How to run it; the caller's own copy."""
        fields: dict[str, Any] = json.loads(self.config_json)
        return fields

    @classmethod
    def from_bytes(cls, data: bytes, what: str = "the image's config") -> Self:
        """Read one; raises ImageError."""
        document = read_document(data, what)
        rootfs = document.document("rootfs")
        if rootfs.text("type", "layers") != "layers":
            raise rootfs.error(f"has the unknown type {rootfs.text('type')!r:.100}")
        return cls(
            platform=Platform.of(document),
            created=document.text("created", ""),
            author=document.text("author", ""),
            config_json=_checked_config(document),
            diff_ids=tuple(rootfs.checked_digest("diff_ids", one) for one in rootfs.texts("diff_ids")),
            history=tuple(map(History.of, document.documents("history"))),
        )

    def to_bytes(self) -> bytes:
        """Return its canonical form."""
        more = {"created": self.created, "author": self.author, "history": [one.as_dict() for one in self.history]}
        return canonical(
            {
                **self.platform.as_dict(),
                **{name: value for name, value in more.items() if value},
                "config": self.config,
                "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
            }
        )


def _checked_config(document: Document) -> str:
    if "config" not in document:
        return "{}"
    config = document.document("config")
    for name in ("Env", "Cmd", "Entrypoint", "OnBuild", "Shell"):
        config.texts(name)
    for name in ("User", "WorkingDir", "StopSignal"):
        config.text(name, "")
    config.pairs("Labels")
    for name in ("ExposedPorts", "Volumes", "Healthcheck"):
        if name in config:
            config.document(name)
    return config.as_json()
