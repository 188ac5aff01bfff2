"""PYTEST_DONT_REWRITE. Images that go from the store to registries: blobs first, and only those that are not there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin

from pytest_sandbox_runtime.errors import ImageError, RegistryAuthError, RegistryError, RegistryUnreachableError
from pytest_sandbox_runtime.images.layout import canonical_name
from pytest_sandbox_runtime.images.reference import DEFAULT_TAG, Reference
from pytest_sandbox_runtime.images.registry.meter import Meter, Metered
from pytest_sandbox_runtime.images.registry.transport import BUSY

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.layout import Layout
    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.images.registry.client import Registries
    from pytest_sandbox_runtime.images.registry.repository import Repository
    from pytest_sandbox_runtime.images.registry.transport import Answer, Body

_AT_ONCE = 3
_ACTIONS = ("pull", "push")


def push(
    layout: Layout, registries: Registries, image: Descriptor, reference: Reference, meter: Meter | None = None
) -> Reference:
    """Send the image to where ``reference`` says, as it is, and return the name with its digest; raises ImageError."""
    if reference.digest:
        raise ImageError(f"{reference} has a digest, which nobody can give to an image", hint="leave the digest out")
    descriptor, manifest = layout.manifest_of(image)
    meter = meter or Meter(lambda _there, _total: None)
    meter.expect((manifest.config, *manifest.layers))
    pushing = _Pushing(layout, registries.place(reference), _elsewhere(layout, reference), meter)
    with ThreadPoolExecutor(_AT_ONCE, "push") as pool:
        try:
            for _ in pool.map(pushing.blob, dict.fromkeys((manifest.config, *manifest.layers))):
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    pushing.manifest(descriptor, manifest.media_type, reference.tag or DEFAULT_TAG)
    return reference.with_default_tag().with_digest(descriptor.digest)


def _elsewhere(layout: Layout, reference: Reference) -> dict[str, str]:
    """Return in which other repository of the same registry a blob may be, as that is what the store calls it."""
    found: dict[str, str] = {}
    for one in layout.index().manifests:
        try:
            name = Reference.parse(canonical_name(one) or "")
            _, manifest = layout.manifest_of(one)
        except ImageError:
            continue
        if name.domain == reference.domain and name.path != reference.path:
            found.update({part.digest: name.path for part in (manifest.config, *manifest.layers)})
    return found


class _Pushing:
    """One push to one repository."""

    def __init__(self, layout: Layout, repository: Repository, elsewhere: dict[str, str], meter: Meter) -> None:
        self._layout = layout
        self._repository = repository
        self._elsewhere = elsewhere
        self._meter = meter

    def blob(self, descriptor: Descriptor) -> None:
        """Have the registry have the blob; begins anew where that is cut, as long as there is patience."""
        transport = self._repository.connection.transport
        for wait in transport.waits():
            try:
                if not self._is_there(descriptor):
                    self._upload(descriptor)
            except RegistryAuthError:
                raise
            except RegistryError as error:
                is_passing = isinstance(error, RegistryUnreachableError) or error.status in BUSY
                if wait is None or not is_passing:
                    raise
                transport.pause(wait, str(self._repository))
                continue
            self._meter.at(descriptor.digest, descriptor.size)
            return

    def manifest(self, descriptor: Descriptor, media_type: str, tag: str) -> None:
        """Send the manifest, by which the registry knows the image."""
        data = self._layout.read(descriptor)
        with self._request("PUT", f"manifests/{tag}", headers={"Content-Type": media_type}, body=data) as answer:
            self._repository.check(answer, f"take the manifest {descriptor.digest}", (201,))
            digest = answer.headers.get("Docker-Content-Digest", descriptor.digest)
        if digest != descriptor.digest:
            raise RegistryError(f"{self._repository} took the manifest {descriptor.digest} for {digest:.200}")

    def _is_there(self, descriptor: Descriptor) -> bool:
        with self._request("HEAD", f"blobs/{descriptor.digest}") as answer:
            return answer.status == 200

    def _upload(self, descriptor: Descriptor) -> None:
        place = self._begin(descriptor)
        if place is None:
            return
        url = f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': descriptor.digest})}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
        with self._layout.open(descriptor) as blob:
            body = Metered(blob, self._meter, descriptor.digest)
            with self._request("PUT", url, headers=headers, body=body) as answer:
                self._repository.check(answer, f"take the blob {descriptor.digest}", (201,))

    def _begin(self, descriptor: Descriptor) -> str | None:
        """Return where the blob is to be sent; None where another repository of the registry had it."""
        other = self._elsewhere.get(descriptor.digest)
        if other is not None:
            query = urlencode({"mount": descriptor.digest, "from": other})
            try:
                with self._request("POST", f"blobs/uploads/?{query}", body=b"", others=(other,)) as answer:
                    if answer.status in (201, 202):
                        return None if answer.status == 201 else _location(answer)
            except RegistryAuthError:
                pass  # of that one nothing is to be read
        with self._request("POST", "blobs/uploads/", body=b"") as answer:
            self._repository.check(answer, "begin an upload", (202,))
            return _location(answer)

    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: Body = None,
        others: tuple[str, ...] = (),
    ) -> Answer:
        return self._repository.request(method, path, headers=headers, body=body, actions=_ACTIONS, others=others)


def _location(answer: Answer) -> str:
    location = answer.headers.get("Location")
    if not location:
        raise RegistryError(f"{answer.host} does not say where a blob is to be sent", status=answer.status)
    return urljoin(answer.url, location)
