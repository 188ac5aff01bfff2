"""What a spec means on this host: the job that the supervisor is given. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import marshal
import os
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.capabilities import is_privileged
from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.hints import Host
from pytest_sandbox_runtime.kernel.capabilities import Capability
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag
from pytest_sandbox_runtime.network.watch import RESOLVER
from pytest_sandbox_runtime.rootfs.host import HostView, host_tree, mounts_for
from pytest_sandbox_runtime.rootfs.layer import ThinLayer, write_fixed_files, write_missing_places
from pytest_sandbox_runtime.rootfs.plan import Overlay, Surroundings, Tree, plan, stack
from pytest_sandbox_runtime.specs.bases import Unpacked
from pytest_sandbox_runtime.specs.confinement import CAPABILITIES
from pytest_sandbox_runtime.specs.sandbox import is_copied
from pytest_sandbox_runtime.supervisor.confinement import seccomp_program
from pytest_sandbox_runtime.supervisor.server import LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.engine import EngineSettings
    from pytest_sandbox_runtime.images.store import Store
    from pytest_sandbox_runtime.rootfs.steps import Step
    from pytest_sandbox_runtime.specs import Mount, SandboxSpec

    Nameservers = tuple[str, ...] | None

LIMITS = ("memory", "cpus", "pids")
_NAMESPACES = CloneFlag.NEWNS | CloneFlag.NEWUTS | CloneFlag.NEWIPC | CloneFlag.NEWCGROUP


@dataclass(frozen=True)
class Job:
    """What is asked for, in the same bytes each time, so that the supervisor can get ahead; and what will come of it.

    ``uid`` is that of the sandbox's own processes, ``namespaces`` the CLONE_NEW flags of all that it can be joined in.
    """

    request: bytes
    tree: Tree
    uid: int
    namespaces: int


class Jobs:
    """Turns specs into jobs, each once; the thin layers that they need are written where ``seen`` reaches."""

    def __init__(self, settings: EngineSettings, store: Store, seen: Callable[[str], str]) -> None:
        self._settings = settings
        self._store = store
        self._seen = seen
        self._privileged = is_privileged()
        self._is_nested = Host().is_sandbox()
        self._trees: dict[tuple[object, ...], Tree] = {}
        self._jobs: dict[tuple[SandboxSpec, Nameservers], Job] = {}

    def of(self, spec: SandboxSpec, nameservers: Nameservers = None) -> Job:
        """Return the job of ``spec``; raises SandboxError where its image is none.

        What is to be on networks has their ``nameservers``, and a file of hosts that the supervisor writes.
        """
        if (spec, nameservers) not in self._jobs:
            self._jobs[spec, nameservers] = self._make(spec, nameservers)
        return self._jobs[spec, nameservers]

    def _make(self, spec: SandboxSpec, nameservers: Nameservers) -> Job:
        tree, namespaces = self._tree(spec, nameservers), self._namespaces(spec)
        around = self._around(spec, has_hosts=nameservers is not None)
        limits = tuple(getattr(spec, name) for name in LIMITS)
        work = {
            "stack": (*self._begun(tree), *stack(tree, around)),
            "is_immutable": tree.is_immutable,
            "plan": plan(tree, around),
            "has_hosts": around.has_hosts,
            "extra_hosts": _lines(spec.extra_hosts).encode(),
            "ulimits": tuple((getattr(resource, f"RLIMIT_{name.upper()}"), *limits) for name, *limits in spec.ulimits),
            "cap_add": tuple(int(getattr(Capability, name)) for name in spec.cap_add if name not in CAPABILITIES),
            "cap_drop": tuple(int(getattr(Capability, name)) for name in spec.cap_drop),
            "overlays": len(tree.overlays),
            "on_disk": self._is_on_disk(spec),
            "namespaces": namespaces,
            "identity": self._identity(spec),
            "limits": limits if any(limit is not None for limit in limits) else None,
            "hostname": spec.hostname,
            "seccomp": seccomp_program(nests=spec.nesting),
            "telling": None if spec.network == "host" else seccomp_program(tells=True, nests=spec.nesting),
        }
        joined = namespaces | CloneFlag.NEWPID | (0 if self._privileged else CloneFlag.NEWUSER)
        return Job(marshal.dumps(work), tree, self._identity(spec)[0], joined)

    def _begun(self, tree: Tree) -> tuple[Step, ...]:
        if self._settings.kept is None:
            return ()
        from pytest_sandbox_runtime.kept import copies

        return copies(self._settings.kept, tree)

    def plan(self, spec: SandboxSpec) -> tuple[Step, ...]:
        """Return the mount plan of ``spec``."""
        tree, around = self._tree(spec, None), self._around(spec, has_hosts=False)
        return stack(tree, around) + plan(tree, around)

    def _around(self, spec: SandboxSpec, *, has_hosts: bool) -> Surroundings:
        return Surroundings(
            user_namespace=not self._privileged,
            on_disk=self._is_on_disk(spec),
            host_network=spec.network == "host",
            has_hosts=has_hosts,
            read_only=spec.read_only,
            shm_size=spec.shm_size,
            nesting=spec.nesting,
            mounts=(*self._shown_mounts(spec), *(mount for mount in spec.mounts if not is_copied(mount))),
        )

    def _is_on_disk(self, spec: SandboxSpec) -> bool:
        # What is written in memory would count against the sandbox's limit.
        is_built_on = isinstance(spec.image.base, Unpacked) and spec.image.base.on_disk
        return self._settings.on_disk or spec.memory is not None or is_built_on

    def _shown_mounts(self, spec: SandboxSpec) -> tuple[Mount, ...]:
        return mounts_for(self._settings.show) if spec.image.is_host else ()

    def _tree(self, spec: SandboxSpec, nameservers: Nameservers) -> Tree:
        copied = tuple(filter(is_copied, spec.mounts))
        key = (spec.image, spec.hostname, spec.network, spec.extra_hosts, nameservers, copied)
        if key not in self._trees:
            name = os.urandom(6).hex()
            os.mkdir(self._seen(f"{LAYERS}/{name}"))
            self._trees[key] = self._make_tree(spec, f"{LAYERS}/{name}", nameservers or (RESOLVER,))
        return self._trees[key]

    def _make_tree(self, spec: SandboxSpec, directory: str, nameservers: tuple[str, ...]) -> Tree:
        host_network = spec.network == "host"
        if spec.image.is_host:
            view = HostView(
                hostname=spec.hostname,
                host_network=host_network,
                nameservers=nameservers,
                extra_hosts=_lines(spec.extra_hosts),
                show=self._settings.show,
                needed=self._settings.needed,
                hide=(self._store.path,),
            )
            return host_tree(directory, self._seen(directory), view, user_namespace=not self._privileged)
        assert isinstance(spec.image.base, Unpacked)
        roots = spec.image.base.roots
        thin = ThinLayer(self._seen(f"{directory}/0"), *roots, user_namespace=not self._privileged)
        write_missing_places(thin)
        write_fixed_files(
            thin,
            spec.hostname,
            host_network=host_network,
            nameservers=nameservers,
            extra_hosts=_lines(spec.extra_hosts),
        )
        overlays = [Overlay("/", (f"{directory}/0", *roots))]
        for mount in filter(is_copied, spec.mounts):
            _check_lower(mount)
            thin.make_directory(mount.target.strip("/"))
            overlays.append(Overlay(os.path.normpath(mount.target), (str(mount.source),), len(overlays)))
        return Tree(tuple(overlays), is_immutable=len(overlays) == 1 and all(map(self._store.holds, roots)))

    def _namespaces(self, spec: SandboxSpec) -> int:
        flags = _NAMESPACES
        if self._is_nested:
            # Refused there, as whoever has one may mount control groups; the sandbox around it has one.
            flags &= ~CloneFlag.NEWCGROUP
        if spec.network == "none":
            flags |= CloneFlag.NEWNET
        if spec.time_namespace:
            flags |= CloneFlag.NEWTIME
        return flags

    def _identity(self, spec: SandboxSpec) -> tuple[int, int]:
        """Return the (uid, gid) of the sandbox's own processes.

        In a copy of the machine an ordinary user stays who they are, in a user namespace below the run's; anywhere
        else, and where they ask to be root, they are root.
        """
        if self._privileged or not spec.image.is_host or str(spec.user) in ("root", "0"):
            return 0, 0
        return os.getuid(), os.getgid()


def _check_lower(mount: Mount) -> None:
    if not os.path.isdir(str(mount.source)):
        raise SpecError(f"mount of {mount.source}: only a directory can be copied on write, and there is none")


def _lines(hosts: tuple[tuple[str, str], ...]) -> str:
    return "".join(f"{address} {name}\n" for name, address in hosts)
