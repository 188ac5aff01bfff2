"""PYTEST_DONT_REWRITE. The images of compose services: built, pulled, or those that the caller stands in for a name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import ComposeError
from pytest_sandbox_runtime.specs.image import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_sandbox_runtime.compose.builds import Build, BuildContext
    from pytest_sandbox_runtime.compose.model import ComposeService, Project

_ALWAYS = ("always", "daily", "weekly")


class ServiceImages:
    """Images of one project's services. ``images`` are those that names of the file, and of its Dockerfiles, stand for.

    What has to be written for a build goes to ``directory``.
    """

    def __init__(self, project: Project, images: Mapping[str, Image], directory: str) -> None:
        self._project = project
        self._images = images
        self._directory = directory
        self._known: dict[str, Image] = {}

    def of(self, service: ComposeService) -> Image:
        """Return the image of ``service``; raises ComposeError."""
        if service.name not in self._known:
            self._known[service.name] = self._find(service)
        return self._known[service.name]

    def must_pull(self, service: ComposeService) -> bool:
        """Return whether the registry is to be asked even where the image is there."""
        policy = service.pull_policy or ""
        return service.build is None and service.image not in self._images and policy.startswith((*_ALWAYS, "every_"))

    def _find(self, service: ComposeService) -> Image:
        name = service.image
        if name is not None and name in self._images:
            return self._images[name]
        if service.build is not None:
            return self._build(service, service.build)
        if name is None:
            raise ComposeError("has neither image nor build", path=service.origin, key=f"services.{service.name}")
        return Image.pull(name, platform=service.platform)

    def _build(self, service: ComposeService, build: Build) -> Image:
        dockerfile = build.dockerfile
        if build.dockerfile_inline is not None:
            dockerfile = os.path.join(self._directory, f"{service.name}.Dockerfile")
            with open(dockerfile, "w", encoding="utf-8") as file:
                file.write(build.dockerfile_inline)
        contexts = {**self._images, **{one.name: self._context(service, one) for one in build.contexts}}
        image = Image.dockerfile(
            dockerfile or build.context,
            build.target,
            dict(build.args),
            contexts,
            context=build.context,
            secrets={use.target or use.source: self._secret(service, use.source) for use in build.secrets},
        )
        return image.label(**dict(build.labels)) if build.labels else image

    def _context(self, service: ComposeService, context: BuildContext) -> Image:
        if context.directory is not None:
            return Image.scratch().copy(f"{context.directory}/.", "/")
        if context.image is not None:
            return self._images.get(context.image) or Image.pull(context.image)
        if context.service == service.name:
            raise ComposeError("is built from itself", path=service.origin, key=f"services.{service.name}.build")
        return self.of(self._project.service(str(context.service)))

    def _secret(self, service: ComposeService, key: str) -> str:
        for secret in self._project.secrets:
            if secret.key == key and secret.file is not None:
                return secret.file
        key = f"services.{service.name}.build.secrets"
        raise ComposeError("a secret of a build has to be a file", path=service.origin, key=key)
