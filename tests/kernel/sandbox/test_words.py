"""Words of a spec that narrow a sandbox, or tell it more."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pytest_sandbox_runtime import Engine, SandboxSpec, SpecError
from pytest_sandbox_runtime.kernel.capabilities import Capability, capget
from pytest_sandbox_runtime.specs.confinement import ADDABLE, CAPABILITIES

pytestmark = pytest.mark.needs("overlay-on-host")


def printed(engine: Engine, command: str, **words: Any) -> str:
    with engine.create(SandboxSpec(**words)) as sandbox:
        return str(sandbox.run(command, check=True).stdout)


def test_hosts_have_names(engine: Engine) -> None:
    hosts = {"db.example": "192.0.2.7", "six.example": "2001:db8::1"}
    assert printed(engine, "getent hosts db.example", extra_hosts=hosts).split() == ["192.0.2.7", "db.example"]
    with engine.network() as network, engine.create(SandboxSpec(extra_hosts=hosts), [network]) as sandbox:
        assert sandbox.run("getent hosts six.example").stdout.split() == ["2001:db8::1", "six.example"]


def test_limits_of_processes_are_set(engine: Engine) -> None:
    limits = {"nofile": (100, 200), "core": 0}
    assert printed(engine, "ulimit -Sn; ulimit -Hn; ulimit -c", ulimits=limits) == "100\n200\n0\n"


def test_capabilities_can_be_taken_away(engine: Engine) -> None:
    count = "grep CapBnd /proc/self/status"
    assert printed(engine, count, cap_drop=["ALL"]).split() == ["CapBnd:", "0" * 16]
    with_all, without = (int(printed(engine, count, cap_drop=drop).split()[1], 16) for drop in ((), ("CAP_MKNOD",)))
    assert with_all & ~without == 1 << 27


@pytest.mark.needs("python3")
def test_capabilities_can_be_added(engine: Engine) -> None:
    lower = "import fcntl, socket, struct; "
    lower += "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0)); "
    lower += "print(open('/sys/class/net/lo/operstate').read().strip())"
    with engine.create(SandboxSpec(cap_add=("CAP_NET_ADMIN", "SYS_NICE"), user="root")) as sandbox:
        assert sandbox.run(["python3", "-c", lower], check=True).stdout == "down\n"
        # What is started by what is started has them, too.
        assert sandbox.run(["sh", "-c", f'python3 -c "{lower}"'], check=True).stdout == "down\n"
    # The next one has neither the right nor that network.
    with engine.create(SandboxSpec(user="root")) as other:
        assert other.read_text("/sys/class/net/lo/operstate") == "unknown\n"
        assert "Operation not permitted" in other.run(["python3", "-c", lower]).stderr


def test_all_that_can_be_added_can_be(engine: Engine) -> None:
    # A machine's root may itself lack some; who is none there is root of all of a namespace.
    mine = capget().permitted if os.geteuid() == 0 else -1
    there = tuple(name for name in ADDABLE if mine >> int(getattr(Capability, name)) & 1)
    with engine.create(SandboxSpec(cap_add=there, user="root")) as sandbox:
        held = int(str(sandbox.run("grep CapPrm /proc/self/status").stdout).split()[1], 16)
    assert held.bit_count() == len(there) + len(CAPABILITIES)


def test_shared_memory_has_a_size(engine: Engine) -> None:
    assert printed(engine, "df -B1 --output=size /dev/shm | tail -1", shm_size="8M").strip() == str(8 << 20)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"cap_add": ["SYS_ADMIN"]}, "cap_add has 'SYS_ADMIN', which would reach beyond the sandbox"),
        ({"cap_add": ["ALL"]}, "cap_add has 'ALL'"),
        ({"cap_add": ["NET_ADMIN"], "network": "host"}, "and network='host' is the machine's"),
        ({"cap_drop": ["SYS_ADMIN"]}, "cap_drop has 'SYS_ADMIN', which no sandbox has"),
        ({"ulimits": {"files": 1}}, "ulimits has 'files', which is no limit"),
        ({"ulimits": {"nofile": (2, 1)}}, "whose soft limit is more than the hard one"),
        ({"ulimits": {"nofile": "many"}}, "which are no numbers"),
        ({"extra_hosts": {"db": "nowhere"}}, "which is no address"),
        ({"extra_hosts": {"d b": "192.0.2.1"}}, "is not a name for extra_hosts"),
        ({"ports": {80: 0}}, "which are no numbers from 1 to 65535"),
        ({"ports": {"80/sctp": 80}}, "whose protocol is neither tcp nor udp"),
    ],
)
def test_nonsense_is_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        SandboxSpec(**words)
