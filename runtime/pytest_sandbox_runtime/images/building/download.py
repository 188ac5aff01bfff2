"""PYTEST_DONT_REWRITE. A file from the net, checked before it is used."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from typing import IO

from pytest_sandbox_runtime.errors import ImageError

_CHUNK = 1 << 20
_TIMEOUT = 60


def download(url: str, checksum: str | None, target: IO[bytes]) -> None:
    """Write what is at ``url``, http or https, to ``target``, and go back to its begin.

    Raises ImageError where it is not there, or is not of ``checksum``.
    """
    algorithm, _, expected = (checksum or "sha256:").partition(":")
    digest = hashlib.new(algorithm)
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:  # noqa: S310  the scheme was checked
            while chunk := response.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise ImageError(f"cannot download {url}: {getattr(error, 'reason', error)}") from error
    if expected and digest.hexdigest() != expected:
        found = f"{algorithm}:{digest.hexdigest()}"
        raise ImageError(f"{url} is not what it was: it has the checksum {found}", hint=f"it should have {checksum}")
    target.seek(0)
