"""PYTEST_DONT_REWRITE. Layers that a command makes: upper directories of sandboxes over the layers below."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import BuildError, CommandError, CommandNotFoundError, ImageError
from pytest_sandbox_runtime.images.building.staged import copied
from pytest_sandbox_runtime.images.mapped import worker
from pytest_sandbox_runtime.images.places import remove_tree
from pytest_sandbox_runtime.lowers import MergedTree
from pytest_sandbox_runtime.process import STDOUT
from pytest_sandbox_runtime.specs import (
    BindMount,
    CacheMount,
    Copy,
    FileMount,
    Image,
    Mount,
    SandboxSpec,
    SecretMount,
    Tmpfs,
    TmpfsMount,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.images.config import Step
    from pytest_sandbox_runtime.sandbox import Sandbox

    RootsOf = Callable[[Image], tuple[str, ...]]

_LINES = 30


@contextlib.contextmanager
def ran(engine: Engine, image: Image, step: Step, roots: tuple[str, ...], roots_of: RootsOf) -> Iterator[str]:
    """Run the command of ``step`` on ``image``, whose unpacked layers are ``roots``; yields the upper directory.

    ``roots_of`` gives the unpacked layers of other images, which mounts may name. Raises BuildError where the command
    does not end with 0.
    """
    run = step.run
    assert run is not None
    with ExitStack() as undo:
        mounts = _Mounts(engine, step, roots_of, undo)
        described = [mounts.of(mount) for mount in run.mounts]
        spec = SandboxSpec(image=image, network=run.network, mounts=tuple(one for one in described if one is not None))
        sandbox = undo.enter_context(engine.create(spec))
        _run(sandbox, step, mounts.env)
        sandbox.kill_all()
        upper = sandbox.upper
        worker().call(clear_targets, upper, [one.target for one in spec.mounts], roots)
        yield upper


def _run(sandbox: Sandbox, step: Step, more: dict[str, str]) -> None:
    argv, env, user = list(step.argv), {**step.environment, **more}, step.user or None
    try:
        # In one stream, for what was printed to be in its order.
        outcome = sandbox.run(argv, stderr=STDOUT, env=env, workdir=step.workdir, user=user, text=True)
    except (CommandError, CommandNotFoundError) as error:
        lacks_shell = isinstance(error, CommandNotFoundError) and argv[: len(step.shell)] == list(step.shell)
        hint = "start from an image that has this shell, or give the command as a list" if lacks_shell else error.hint
        raise BuildError(error.message, hint=hint) from error
    if outcome.returncode != 0:
        raise BuildError(f"{outcome}\n{outcome.tail(_LINES)}".rstrip())


def clear_targets(upper: str, targets: list[str], lowers: tuple[str, ...]) -> None:
    """Remove the empty files and directories that were made for mounts, and were not there before."""
    below = MergedTree(lowers)
    for target in targets:
        name = below.resolve(target)
        while name != "." and below.seen(name) is None:
            if not _remove_empty(os.path.join(upper, name)):
                break
            name = os.path.dirname(name) or "."


def _remove_empty(path: str) -> bool:
    try:
        if os.path.isdir(path):
            os.rmdir(path)
        elif os.path.getsize(path) == 0:
            os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class _Mounts:
    """What a step's mounts are for its sandbox; files made for them lie in a directory that goes with ``undo``."""

    def __init__(self, engine: Engine, step: Step, roots_of: RootsOf, undo: ExitStack) -> None:
        self._store = engine.store.path
        self._run = engine.run_directory
        self._step = step
        self._roots_of = roots_of
        self._undo = undo
        self._made = 0
        self.env: dict[str, str] = {}

    def of(self, mount: object) -> Mount | Tmpfs | None:
        """Return the sandbox's mount that ``mount`` is, or None where it is a variable only."""
        if isinstance(mount, CacheMount):
            return Mount(source=self._cache(mount), target=self._path(mount.target), read_only=mount.read_only)
        if isinstance(mount, BindMount):
            return Mount(source=self._bound(mount), target=self._path(mount.target), read_only=mount.read_only)
        if isinstance(mount, TmpfsMount):
            return Tmpfs(target=self._path(mount.target), size=mount.size)
        if isinstance(mount, FileMount):
            return Mount(source=self._file(mount.content, mount.mode), target=self._path(mount.target))
        assert isinstance(mount, SecretMount)
        return self._secret(mount)

    def _path(self, target: str) -> str:
        return self._step.path(target).rstrip("/")

    @functools.cached_property
    def _place(self) -> str:
        from tempfile import mkdtemp

        place = mkdtemp(prefix="step-", dir=self._run)
        self._undo.callback(remove_tree, place)
        return place

    def _new(self) -> str:
        self._made += 1
        return os.path.join(self._place, str(self._made))

    def _file(self, content: bytes, mode: int) -> str:
        path = self._new()
        with open(path, "xb") as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    def _secret(self, mount: SecretMount) -> Mount | None:
        if mount.source is None:
            if mount.required:
                ways = f'secrets={{"{mount.id}": path}}, or pytest-sandbox build --secret id={mount.id},src=FILE'
                raise ImageError(
                    f"the step needs the secret {mount.id}, which was not given", hint=f"name its file: {ways}"
                )
            return None
        try:
            with open(mount.source, "rb") as file:
                content = file.read()
        except OSError as error:
            hint = "write it there, or name another file in secrets="
            raise ImageError(
                f"the secret {mount.id}: cannot read {mount.source}: {error.strerror}", hint=hint
            ) from error
        if mount.env is not None:
            self.env[mount.env] = os.fsdecode(content)
        if mount.target is None:
            return None
        path = self._file(content, mount.mode)
        if os.geteuid() == 0:
            os.chown(path, mount.uid, mount.gid)
        return Mount(source=path, target=self._path(mount.target))

    def _cache(self, mount: CacheMount) -> str:
        from filelock import FileLock

        name = hashlib.sha256(mount.cache_id.encode()).hexdigest()[:32]
        if mount.sharing == "private":
            name = self._free(name)
        elif mount.sharing == "locked":
            self._undo.enter_context(FileLock(os.path.join(self._store, "locks", f"cache-{name}.lock")))
        path = os.path.join(self._store, "caches", name)
        if not os.path.isdir(path):
            self._fill(path, mount)
        return path

    def _free(self, name: str) -> str:
        """Return the name of the first cache like ``name`` that nobody uses now."""
        from filelock import FileLock, Timeout

        number = 0
        while True:
            try:
                lock = FileLock(os.path.join(self._store, "locks", f"cache-{name}-{number}.lock"), timeout=0)
                self._undo.enter_context(lock)
            except Timeout:
                number += 1
            else:
                return f"{name}-{number}"

    def _fill(self, path: str, mount: CacheMount) -> None:
        if mount.from_ is None:
            partial = self._new()
            os.mkdir(partial)
        else:
            partial = self._copied(mount.source or "/", self._roots_of(mount.from_), from_=mount.from_)
        os.chmod(partial, mount.mode)
        if os.geteuid() == 0:
            os.chown(partial, mount.uid, mount.gid)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        # Another may have been quicker.
        with contextlib.suppress(OSError):
            os.rename(partial, path)

    def _bound(self, mount: BindMount) -> str:
        if mount.context is not None:
            return self._copied(mount.source or ".", (), context=mount.context)
        assert mount.from_ is not None
        roots = self._roots_of(mount.from_)
        if mount.read_only and len(roots) == 1:
            tree = MergedTree(roots)
            return os.path.join(*roots, tree.resolve(mount.source))
        return self._copied(mount.source or "/", roots, from_=mount.from_)

    def _copied(self, source: str, others: tuple[str, ...], **where: Any) -> str:
        """Return a copy of what ``source`` is: for what may be written to, is filtered, or is merged."""
        path = self._new()
        os.mkdir(path)
        return worker().call(copied, Copy(sources=(source,), target="/", **where), path, others)
