"""PYTEST_DONT_REWRITE. What a person is told of images: lines of lists, and all there is to know of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.manifest import ImageConfig
    from pytest_sandbox_runtime.images.reference import Reference


@dataclass(frozen=True)
class ImageSummary:
    """A line of the list of images; ``id`` is the config's digest, as Docker has it, ``size`` that of the layers."""

    reference: Reference | None
    digest: str
    id: str
    created: str
    size: int


@dataclass(frozen=True)
class LayerDetails:
    """A layer of an image; ``unpacked`` is the directory with its files, None where it was not unpacked yet."""

    digest: str
    diff_id: str
    media_type: str
    size: int
    unpacked: str | None


@dataclass(frozen=True)
class ImageDetails:
    """All that is known of an image; layers are the lowest first."""

    references: tuple[Reference, ...]
    digest: str
    id: str
    size: int
    config: ImageConfig
    layers: tuple[LayerDetails, ...]


@dataclass(frozen=True)
class HistoryStep:
    """How a part of an image came to be, the last first; ``size`` is 0 where it changed only the config."""

    id: str | None
    created: str
    created_by: str
    size: int
    comment: str


def as_docker_json(details: ImageDetails) -> dict[str, Any]:
    """Return ``details`` in the words of ``docker image inspect``."""
    repositories = sorted({one.familiar_name for one in details.references})
    platform = details.config.platform
    return {
        "Id": details.id,
        "RepoTags": [one.familiar for one in details.references if one.tag],
        "RepoDigests": [f"{name}@{details.digest}" for name in repositories],
        "Digest": details.digest,
        "Created": details.config.created,
        "Author": details.config.author,
        "Architecture": platform.architecture,
        **({"Variant": platform.variant} if platform.variant else {}),
        "Os": platform.os,
        "Size": details.size,
        "Config": details.config.config,
        "RootFS": {"Type": "layers", "Layers": list(details.config.diff_ids)},
        "Layers": [{"Digest": one.digest, "MediaType": one.media_type, "Size": one.size} for one in details.layers],
    }
