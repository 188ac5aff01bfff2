"""PYTEST_DONT_REWRITE. What an image's layers are stacked on."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.capabilities import is_privileged
from pytest_sandbox_runtime.errors import BuildError, ImageError, UnsupportedError
from pytest_sandbox_runtime.images.building.chain import Chain
from pytest_sandbox_runtime.images.documents import canonical
from pytest_sandbox_runtime.images.roots import check_root
from pytest_sandbox_runtime.images.stack import Stack
from pytest_sandbox_runtime.specs import Archive, Debian, Pull, Scratch
from pytest_sandbox_runtime.specs.epoch import SOURCE_DATE_EPOCH

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
# As in Debian's images for Docker, invoke-rc.d(8) starts no service: one would be in the way of those of this machine.
_NO_SERVICES = r'printf "#!/bin/sh\nexit 101\n" > "$1"/usr/sbin/policy-rc.d && chmod 755 "$1"/usr/sbin/policy-rc.d'


def base_of(base: Base, store: Store, images: Images, telling: Telling) -> Chain:
    """Return the layers that ``base`` stands for, unpacked; raises ImageError."""
    if isinstance(base, Scratch):
        return Chain()
    if isinstance(base, Archive):
        return _archive(base.path, store)
    if isinstance(base, Pull):
        built = images.pull_missing(base.reference, platform=base.platform)
        return chain_of(built.descriptor, store)
    if isinstance(base, Debian):
        base = images.locked_packages(base)
        return chain_of(_debian(base, store, images, telling), store)
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


def _debian(base: Debian, store: Store, images: Images, telling: Telling) -> Descriptor:
    from pytest_sandbox_runtime.images.archive import load

    words = _mmdebstrap_words(base)
    # Of what mmdebstrap is told, so that other words make another base.
    key = f"base:{hashlib.sha256(canonical([SOURCE_DATE_EPOCH, *words])).hexdigest()}"
    record = store.recall(key)
    if record is not None and record.descriptor is not None:
        return record.descriptor
    images.check_online(f"Image.debian({base.suite!r}) is not in the store", hint="build it once with the network")
    if shutil.which("mmdebstrap") is None:
        raise UnsupportedError(
            f"Image.debian({base.suite!r}) is made by mmdebstrap, which is not installed",
            hint="sudo apt install mmdebstrap",
        )
    with (
        telling(f"{base.suite}: made by mmdebstrap"),
        tempfile.TemporaryDirectory(prefix="debian-", dir=store.path) as place,
    ):
        tar = os.path.join(place, "root.tar")
        _mmdebstrap(base.suite, words, tar)
        ((_, descriptor),) = load(store, tar)
    store.remember(key, descriptor=descriptor)
    return descriptor


def _mmdebstrap_words(base: Debian) -> list[str]:
    """Return the arguments of mmdebstrap(1) that say what ``base`` is."""
    mirror = f"{_SNAPSHOT}/{base.snapshot}" if base.snapshot else _DEBIAN
    return [
        "--variant=minbase",
        *([f"--include={','.join(base.packages)}"] if base.packages else []),
        # Lists of a day long past are what was asked for.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        # As in Debian's images for Docker: Dockerfiles that remove what only a build needed count on it.
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::AutoRemove::SuggestsImportant "false"',
        f"--customize-hook={_NO_SERVICES}",
        base.suite,
        "-",
        f"deb {mirror} {base.suite} main",
    ]


def _apart() -> list[str]:
    """Return what keeps the mounts that mmdebstrap(1) makes as root from the host, also where it is killed."""
    return ["unshare", "--mount", "--"] if is_privileged() and shutil.which("unshare") else []


def _mmdebstrap(suite: str, words: list[str], tar: str) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)}
    with open(tar, "wb") as out:
        done = subprocess.run(
            [*_apart(), "mmdebstrap", *words],
            check=False,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            errors="replace",
        )
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-_LINES:])
        raise BuildError(
            f"mmdebstrap could not make {suite}:\n{last}", hint="is the mirror reachable, and the suite right?"
        )
