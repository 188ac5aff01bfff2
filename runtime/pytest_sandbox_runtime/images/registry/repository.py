"""PYTEST_DONT_REWRITE. One repository of a registry: its manifests, its tags, its blobs."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from pytest_sandbox_runtime.errors import ImageError, RegistryAuthError, RegistryError, RegistryNotFoundError
from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.documents import MAX_DOCUMENT
from pytest_sandbox_runtime.images.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from pytest_sandbox_runtime.images.registry.trouble import TROUBLE, unreachable

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.registry.client import Connection
    from pytest_sandbox_runtime.images.registry.transport import Answer, Body

_ACCEPT = {"Accept": ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))}
_MOST_PAGES = 100
_MOST_NEAR = 5
_PAGE = 1000
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel\s*=\s*"?next"?')


class Repository:
    """The repository ``name`` at the registry behind ``connection``."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name

    def __str__(self) -> str:
        return f"{self.connection.endpoint.name}/{self.name}"

    def digest_of(self, tag: str) -> str | None:
        """Return what ``tag`` stands for now; None where the registry does not say so without being asked for more."""
        try:
            with self.request("HEAD", f"manifests/{tag}", headers=_ACCEPT) as answer:
                return answer.headers.get("Docker-Content-Digest") if answer.status == 200 else None
        except RegistryAuthError:
            return None  # Amazon's public registry lets everybody GET

    def manifest(self, which: str) -> tuple[Descriptor, bytes]:
        """Return the manifest or the index ``which``, a tag or a digest, checked; raises RegistryError."""
        what = f"the manifest {which}"
        answer, data = self._document(f"manifests/{which}", what, _ACCEPT)
        if answer.status == 404:
            raise self._not_found(which)
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        said = answer.headers.get("Docker-Content-Digest")
        digest = digest_of(data)
        for wanted in (which if ":" in which else None, said):
            if wanted is not None and wanted != digest:
                again = "it may have been damaged on its way, or the registry is wrong: pull again"
                raise RegistryError(
                    f"{what} of {self} has the digest {digest}, and should have {wanted:.200}", hint=again
                )
        # Some say text/plain, or nothing; then the document does.
        return Descriptor(kind if kind in INDEX_TYPES + MANIFEST_TYPES else "", digest, len(data)), data

    def tags(self) -> tuple[str, ...]:
        """Return all tags, versions in their order; raises RegistryError."""
        found: set[str] = set()
        path = f"tags/list?n={_PAGE}"
        for _ in range(_MOST_PAGES):
            answer, data = self._document(path, "the list of tags")
            if answer.status == 404:
                raise RegistryNotFoundError(f"there is no repository {self}", hint="is the name right?", status=404)
            found.update(self._tags_in(data))
            following = _NEXT.search(answer.headers.get("Link", ""))
            path = urljoin(answer.url, following[1]) if following else ""
            if urlsplit(path).netloc != self.connection.endpoint.host:
                break
        return tuple(sorted(found, key=_parts))

    def blob(self, descriptor: Descriptor, start: int) -> Answer:
        """Return the answer that has the blob from byte ``start`` on, or all of it where that cannot be had."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self.request("GET", f"blobs/{descriptor.digest}", headers=headers)
        if answer.status == 404:
            answer.close()
            raise RegistryNotFoundError(
                f"{self} lacks the blob {descriptor.digest}, which its manifest has", status=404
            )
        if answer.status != 416:
            self.check(answer, f"give the blob {descriptor.digest}", (200, 206))
        return answer

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: Body = None,
        actions: tuple[str, ...] = ("pull",),
        others: tuple[str, ...] = (),
    ) -> Answer:
        """Return what is answered to ``path``, of this repository or a whole URL."""
        whole = path if "://" in path else f"{self.name}/{path}"
        return self.connection.request(
            method, whole, repository=self.name, headers=headers, body=body, actions=actions, others=others
        )

    def check(self, answer: Answer, what: str, good: tuple[int, ...] = (200,)) -> None:
        """Raise RegistryError, which says that it does not ``what``, where the answer is none of the ``good`` ones."""
        if answer.status not in good:
            raise RegistryError(f"{self} does not {what}: {answer.told()}", status=answer.status)

    def _document(self, path: str, what: str, headers: dict[str, str] | None = None) -> tuple[Answer, bytes]:
        """Return the answer and its content, asked for again where that was cut; nothing of it where there is none."""
        transport = self.connection.transport
        for wait in transport.waits():
            with self.request("GET", path, headers=headers) as answer:
                if answer.status == 404:
                    return answer, b""
                self.check(answer, f"give {what}")
                try:
                    return answer, answer.content(MAX_DOCUMENT, what)
                except TROUBLE as error:
                    if wait is None:
                        raise unreachable(answer.host, error) from error
            transport.pause(wait, answer.host)
        raise AssertionError  # the last wait is None

    def _tags_in(self, data: bytes) -> list[str]:
        try:
            tags = json.loads(data)["tags"] or []
            return [one for one in tags if isinstance(one, str) and one.isprintable()]
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"{self} was asked for its tags, and sent none") from error

    def _not_found(self, which: str) -> RegistryNotFoundError:
        try:
            tags = self.tags()
        except RegistryNotFoundError:
            return RegistryNotFoundError(f"there is no repository {self}", hint="is the name right?", status=404)
        except ImageError:
            tags = ()
        near = get_close_matches(which, tags, n=_MOST_NEAR, cutoff=0.4) or tags[-_MOST_NEAR:]
        more = f"; pytest-sandbox search-tags {self} lists all {len(tags)}" if len(tags) > len(near) else ""
        hint = f"it has {', '.join(near)}{more}" if near else ""
        kind = "image" if ":" in which else "tag"
        return RegistryNotFoundError(f"{self} has no {kind} {which}", hint=hint, status=404)


def _parts(tag: str) -> list[str | int]:
    """Return what makes 1.10 come after 1.9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", tag, flags=re.ASCII)]
