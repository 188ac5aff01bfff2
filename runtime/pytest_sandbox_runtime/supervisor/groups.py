"""PYTEST_DONT_REWRITE. The control groups of a run's sandboxes: looked for when the first limit is asked for."""

from __future__ import annotations

from pytest_sandbox_runtime.cgroups import Limits, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_sandbox_runtime.cgroups import Group, Run


class Groups:
    """The groups of the run called ``name``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._run: Run | None = None

    def create(self, name: str, limits: tuple[int | None, float | None, int | None] | None) -> Group | None:
        """Make a group for sandbox ``name``, or none where it has no limits."""
        if limits is None:
            return None
        if self._run is None:
            self._run = find().create_run(self._name)
        return self._run.create(name, Limits(*limits), ("cpuacct",))

    def remove(self) -> None:
        """Remove what holds the groups of this run."""
        if self._run is not None:
            self._run.remove()
            self._run = None
