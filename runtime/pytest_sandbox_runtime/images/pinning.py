"""PYTEST_DONT_REWRITE. References and bases with what a lock pins them to."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import RegistryError
from pytest_sandbox_runtime.images.lock import IMAGES, PACKAGES
from pytest_sandbox_runtime.images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.images.layout import Layout
    from pytest_sandbox_runtime.images.lock import Lock
    from pytest_sandbox_runtime.images.registry.client import Registries
    from pytest_sandbox_runtime.specs import Debian

_ID = re.compile(r"(?:sha256:)?[a-f0-9]{4,64}")


def pinned(reference: str, lock: Lock, layout: Layout, registries: Callable[[], Registries] | None) -> str:
    """Return ``reference`` with the digest that its tag is pinned to; an id is one already.

    A new pin is what the tag stands for at its registry, which is not asked where ``registries`` is None, or, where
    no registry knows it, in ``layout``.
    """
    if _ID.fullmatch(reference) or (name := Reference.parse(reference)).digest:
        return reference
    name = name.with_default_tag()
    digest = lock.meaning((IMAGES, name.canonical), lambda: _digest_now(name, layout, registries))
    return reference if digest is None else replace(name, tag=None, digest=digest).canonical


def _digest_now(name: Reference, layout: Layout, registries: Callable[[], Registries] | None) -> str | None:
    if registries is not None:
        with suppress(RegistryError):
            for place in registries().places(name):
                if digest := place.digest_of(name.tag or ""):
                    return digest
    here = layout.resolve(name)
    return None if here is None else here.digest


def pinned_packages(base: Debian, lock: Lock) -> Debian:
    """Return ``base`` with the day that its suite is pinned to; a new pin is today's."""
    if base.snapshot is not None:
        return base
    name, today = (PACKAGES, base.suite), time.strftime("%Y%m%dT000000Z", time.gmtime())
    # There are new packages each day: that is no move to be told.
    is_old = name in lock.pins and not lock.renews
    return replace(base, snapshot=lock.meaning(name, lambda: None if is_old else today))
