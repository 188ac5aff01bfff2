"""What the processes of a run, and the kernel on their behalf, hold at one moment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Counts over this process and its supervisor, ``processes`` over all below; ``memory`` and ``slab`` in KiB."""

    processes: int
    descriptors: int
    memory: int
    mounts: int
    cgroups: int
    slab: int

    def growth(self, later: Footprint) -> dict[str, int]:
        """Return by how much each has become more in ``later``."""
        return {name: getattr(later, name) - getattr(self, name) for name in self.__slots__}


def footprint() -> Footprint:
    """Return what is held now."""
    # Sandboxes made ready ahead, below the supervisor, come and go meanwhile: they are only counted.
    processes = [os.getpid(), *children_of(os.getpid())]
    return Footprint(
        processes=_processes_below(os.getpid()),
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in processes),
        memory=sum(private_memory(pid) for pid in processes),
        mounts=sum(len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines()) for pid in processes),
        # The walk passes over what is removed under its feet.
        cgroups=sum(1 for _ in os.walk(_CGROUPS)),
        slab=_meminfo("Slab"),
    )


def children_of(pid: int) -> list[int]:
    """Return the pids of the children of ``pid``; none once it is gone."""
    try:
        lists = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for line in lists for child in line.split()]


def _processes_below(pid: int) -> int:
    return sum(1 + _processes_below(child) for child in children_of(pid))


def private_memory(pid: int) -> int:
    """Return the KiB of memory that ``pid`` shares with no other process, as proc_pid_smaps(5) counts it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _meminfo(name: str) -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
