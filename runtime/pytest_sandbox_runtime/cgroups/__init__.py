"""PYTEST_DONT_REWRITE. Limits by control groups: one interface, versions 1 and 2 of cgroups(7) behind it.

The supervisor imports this in a process that starts in milliseconds: no typing, no dataclasses, no re.
"""

from pytest_sandbox_runtime.cgroups.convert import Limits, Stats
from pytest_sandbox_runtime.cgroups.groups import Group, OomWatch, Run, read_stats, remains
from pytest_sandbox_runtime.cgroups.hierarchy import Hierarchy, Place, find

__all__ = ["Group", "Hierarchy", "Limits", "OomWatch", "Place", "Run", "Stats", "find", "read_stats", "remains"]
