"""PYTEST_DONT_REWRITE. Words that narrow a sandbox or tell it more: capabilities, limits of processes, hosts."""

from __future__ import annotations

import re
from typing import Any

from pytest_sandbox_runtime.errors import SpecError
from pytest_sandbox_runtime.specs.network import check_name

# Docker's default set: supervisor.confinement has it by number.
CAPABILITIES = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
# What can be added to it: rights over the sandbox's own processes and network. Others would reach the machine, or do
# nothing, as the system calls that they are for are refused.
ADDABLE = (
    "BLOCK_SUSPEND", "IPC_LOCK", "IPC_OWNER", "LEASE", "NET_ADMIN", "NET_BROADCAST", "SYS_NICE", "SYS_PTRACE",
    "SYS_RESOURCE", "SYS_TTY_CONFIG", "WAKE_ALARM",
)  # fmt: skip
# The names of docker run --ulimit; RLIMIT_ before them are those of getrlimit(2).
ULIMITS = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]+")


def dropped(names: Any) -> tuple[str, ...]:
    """Return ``names`` without CAP_, all of them for "ALL"; raises SpecError for one that a sandbox never has."""
    shorts = _shorts(names)
    if "ALL" in shorts:
        return CAPABILITIES
    for name in shorts:
        if name not in CAPABILITIES:
            raise SpecError(f"cap_drop has {name!r}, which no sandbox has", hint=f"there are {', '.join(CAPABILITIES)}")
    return shorts


def added(names: Any, *, host_network: bool) -> tuple[str, ...]:
    """Return ``names`` without CAP_; raises SpecError for one that a sandbox cannot have."""
    shorts = _shorts(names)
    for name in shorts:
        if name not in (*CAPABILITIES, *ADDABLE):
            hint = f"there are {', '.join(ADDABLE)}"
            raise SpecError(f"cap_add has {name!r}, which would reach beyond the sandbox", hint=hint)
        if host_network and name in ("NET_ADMIN", "NET_BROADCAST"):
            raise SpecError(f"cap_add has {name!r}, and network='host' is the machine's")
    return shorts


def _shorts(names: Any) -> tuple[str, ...]:
    given = (names,) if isinstance(names, str) else names
    return tuple(sorted({str(name).upper().removeprefix("CAP_") for name in given}))


def ulimits_of(limits: Any) -> tuple[tuple[str, int, int], ...]:
    """Return each limit with its soft and its hard value; -1 is none. Raises SpecError."""
    found = []
    for name, value in limits.items() if isinstance(limits, dict) else [(one[0], tuple(one[1:])) for one in limits]:
        soft, hard = value if isinstance(value, (tuple, list)) else (value, value)
        if name not in ULIMITS:
            raise SpecError(f"ulimits has {name!r}, which is no limit", hint=f"there are {', '.join(ULIMITS)}")
        if not all(isinstance(one, int) and not isinstance(one, bool) and one >= -1 for one in (soft, hard)):
            raise SpecError(f"ulimits has {name!r}: {value!r}, which are no numbers", hint="-1 is no limit")
        if hard != -1 and not -1 < soft <= hard:
            raise SpecError(f"ulimits has {name!r}: {value!r}, whose soft limit is more than the hard one")
        found.append((str(name), int(soft), int(hard)))
    return tuple(sorted(found))


def hosts_of(hosts: Any) -> tuple[tuple[str, str], ...]:
    """Return names with their addresses; raises SpecError."""
    pairs = [tuple(pair) for pair in (hosts.items() if isinstance(hosts, dict) else hosts)]
    for name, address in pairs:
        check_name(name, "a name for extra_hosts")
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise SpecError(f"extra_hosts has {name!r}: {address!r}, which is no address")
    return tuple(pairs)
