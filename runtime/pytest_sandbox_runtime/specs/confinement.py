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
# The names of docker run --ulimit; RLIMIT_ before them are those of getrlimit(2).
ULIMITS = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]+")


def capabilities_of(names: Any) -> tuple[str, ...]:
    """Return ``names`` without CAP_, all of them for "ALL"; raises SpecError for one that a sandbox never has."""
    found = []
    for name in (names,) if isinstance(names, str) else names:
        short = str(name).upper().removeprefix("CAP_")
        if short == "ALL":
            return CAPABILITIES
        if short not in CAPABILITIES:
            raise SpecError(f"cap_drop has {name!r}, which no sandbox has", hint=f"there are {', '.join(CAPABILITIES)}")
        found.append(short)
    return tuple(sorted(set(found)))


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
