"""PYTEST_DONT_REWRITE. What an image's layers are stacked on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import BuildError, ImageError, UnsupportedError
from pytest_sandbox_runtime.images.building.chain import Chain
from pytest_sandbox_runtime.images.roots import check_root
from pytest_sandbox_runtime.images.stack import Stack
from pytest_sandbox_runtime.specs import Archive, Debian, Pull, Scratch
from pytest_sandbox_runtime.specs.keys import key_of

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.building.telling import Telling
    from pytest_sandbox_runtime.images.images import Images
    from pytest_sandbox_runtime.images.manifest import Descriptor
    from pytest_sandbox_runtime.images.store import Store
    from pytest_sandbox_runtime.specs import Base

_DEBIAN = "http://deb.debian.org/debian"
_SNAPSHOT = "http://snapshot.debian.org/archive/debian"
_ARCHIVE = "http://archive.ubuntu.com/ubuntu"
_LINES = 20


def base_of(base: Base, store: Store, images: Images, telling: Telling) -> Chain:
    """Return the layers that ``base`` stands for, unpacked; raises ImageError."""
    if isinstance(base, Scratch):
        return Chain()
    if isinstance(base, Archive):
        return _archive(base.path, store)
    if isinstance(base, Pull):
        return chain_of(images.get(base.reference).descriptor, store)
    if isinstance(base, Debian):
        return chain_of(_debian(base, store, telling), store)
    hint = "start from Image.debian(), Image.archive() or Image.pull()"
    raise ImageError("layers cannot be put on a copy of this machine, which is another on each", hint=hint)


def chain_of(descriptor: Descriptor, store: Store) -> Chain:
    """Return the layers of an image in the store."""
    _, manifest = store.images.manifest_of(descriptor)
    config = store.images.config_of(manifest)
    return Chain(
        layers=manifest.layers,
        diff_ids=config.diff_ids,
        stack=store.stack_of(manifest),
        config=config.config,
        author=config.author,
        history=config.history,
        platform=config.platform,
    )


def _archive(path: str, store: Store) -> Chain:
    if os.path.isdir(path) and not os.path.exists(os.path.join(path, "oci-layout")):
        check_root(path, path)
        return Chain(stack=Stack(None, (path,)))
    return chain_of(store.image_in(path), store)


def _debian(base: Debian, store: Store, telling: Telling) -> Descriptor:
    from pytest_sandbox_runtime.images.archive import load

    key = f"base:{key_of(base)}"
    record = store.recall(key)
    if record is not None and record.descriptor is not None:
        return record.descriptor
    if shutil.which("mmdebstrap") is None:
        raise UnsupportedError(
            f"{base} is made by mmdebstrap, which is not installed", hint="sudo apt install mmdebstrap"
        )
    with (
        telling(f"{base.suite}: made by mmdebstrap"),
        tempfile.TemporaryDirectory(prefix="debian-", dir=store.path) as place,
    ):
        tar = os.path.join(place, "root.tar")
        _mmdebstrap(base, tar)
        ((_, descriptor),) = load(store, tar)
    store.remember(key, descriptor=descriptor)
    return descriptor


def _mmdebstrap(base: Debian, tar: str) -> None:
    from pytest_sandbox_runtime.specs.epoch import SOURCE_DATE_EPOCH

    include = [f"--include={','.join(base.packages)}"] if base.packages else []
    mirror = f"{_SNAPSHOT}/{base.snapshot}" if base.snapshot else _DEBIAN
    argv = [
        "mmdebstrap",
        "--variant=minbase",
        *include,
        # Lists of a day long past are what was asked for.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        "--dpkgopt=path-exclude=/var/log/*",
        base.suite,
        tar,
        f"deb {mirror} {base.suite} main",
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment, errors="replace")
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-_LINES:])
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tar)
        raise BuildError(
            f"mmdebstrap could not make {base.suite}:\n{last}", hint="is the mirror reachable, and the suite right?"
        )
