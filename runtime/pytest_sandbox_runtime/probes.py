"""PYTEST_DONT_REWRITE. What this kernel answers: ``python -I -S probes.py root|user|nested DIRECTORY``.

Asked in processes of its own, as nothing of a many-threaded pytest is to be forked or to leave its namespaces. Each
probe is a fork that does what sandboxes will need, and says one line: name, call, errno, detail; an errno of 0 is a
yes. What they mount lies in a mount namespace that ends with them; what they write, below DIRECTORY.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # -I -S: no site-packages, no script's folder, so that nothing but this package and the standard library is found.
    sys.path.insert(0, __file__.rsplit("/", 2)[0])

import errno
import os
import socket
import struct

from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, setns, unshare
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl
from pytest_sandbox_runtime.kernel.seccomp import INSTRUCTION, install
from pytest_sandbox_runtime.network import netlink
from pytest_sandbox_runtime.rootfs.steps import mount_proc
from pytest_sandbox_runtime.supervisor.identities import map_identities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Covered in the probes' own mount namespace, and there on every system.
_SCRATCH = "/tmp"
_NAMESPACES = ("NS", "UTS", "IPC", "NET", "PID", "CGROUP")
_SECCOMP_RET_ALLOW = INSTRUCTION.pack(0x06, 0, 0, 0x7FFF0000)
_LOOPBACK_INDEX = 1
_NETLINK_NETFILTER = 12
_TIMEOUT = struct.pack("ll", 2, 0)


def main(mode: str, directory: str) -> None:
    """Ask everything. ``directory`` is an empty one where a sandbox's upper directories could lie, or ""."""
    _try("user-namespaces", lambda: map_identities(""))
    _try("seccomp", _seccomp)
    _try("entered", lambda: _ask_inside(mode, directory))


def _try(name: str, act: Callable[[], str | None]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            _say(name, "", 0, act() or "")
        except OSError as error:
            _say(name, getattr(error, "call", ""), error.errno or errno.EIO, str(error.filename or ""))
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        _say(name, "seccomp", errno.EPERM, f"killed by signal {os.WTERMSIG(status)}")


def _say(name: str, call: str, code: int, detail: str) -> None:
    os.write(1, f"{name}\t{call}\t{code}\t{detail}\n".encode(errors="replace"))


def _seccomp() -> None:
    prctl(Prctl.SET_NO_NEW_PRIVS, 1)
    install(_SECCOMP_RET_ALLOW)


def _ask_inside(mode: str, directory: str) -> None:
    """Go where the supervisor would be, and fork the other probes there."""
    if mode != "root":
        map_identities("")
    unshare(CloneFlag.NEWNS)
    mount("", "/", "", MountFlag.REC | MountFlag.PRIVATE)
    # By its descriptor from here on: it may lie below what is covered now.
    os.chdir(directory or "/")
    mount("tmpfs", _SCRATCH, "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "mode=755")
    options = "userxattr" if mode != "root" else ""
    upper = "." if directory else _SCRATCH
    _try("namespaces", lambda: _make_namespaces(mode))
    _try("proc", _mount_proc)
    _try("overlayfs", lambda: _overlay(f"{upper}/overlayfs", options))
    _try("tmpfs-upper", lambda: _overlay(f"{_SCRATCH}/tmpfs-upper", options))
    _try("overlay-on-host", lambda: _overlay_on_host(f"{upper}/host", options, mode))
    _try("time-namespaces", _time_namespace)
    _try("pidfd", _pidfd)
    _try("networks", _networks)
    _try("netem", _netem)
    _try("nft", _nft)


def _make_namespaces(mode: str) -> str:
    # In a sandbox that of control groups stays the sandbox's.
    names = _NAMESPACES if mode != "nested" else _NAMESPACES[:-1]
    for name in names:
        try:
            unshare(getattr(CloneFlag, f"NEW{name}"))
        except SyscallError as error:
            raise SyscallError(error.call, error.errno or 0, f"CLONE_NEW{name}") from error
    _in_child(lambda: None)
    return ", ".join(names)


def _in_child(act: Callable[[], None]) -> None:
    """Do ``act`` in a fork, the PID 1 of a new pid namespace; a refused mount of its comes back as an error."""
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            act()
        except OSError as error:
            status = error.errno or errno.EIO
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise SyscallError("mount", abs(status), "proc or sysfs")


def _mount_proc() -> None:
    # Both show namespaces, and are granted to the owner of those only.
    unshare(CloneFlag.NEWPID | CloneFlag.NEWNET)
    safe = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
    for name in ("proc", "sysfs"):
        os.mkdir(f"{_SCRATCH}/{name}")
    _in_child(lambda: mount_proc(f"{_SCRATCH}/proc", safe))
    mount("sysfs", f"{_SCRATCH}/sysfs", "sysfs", safe | MountFlag.RDONLY)


def _overlay(directory: str, options: str) -> None:
    for name in (directory, f"{directory}/lower", f"{directory}/lower/there"):
        os.mkdir(name)
    with open(f"{directory}/lower/there/file", "wb"):
        pass
    merged = _mount_overlay(f"{directory}/lower", directory, options)
    os.unlink(f"{merged}/there/file")
    os.rmdir(f"{merged}/there")
    # Opaque, which is an xattr: where the upper file system takes none, the kernel refuses here and not before.
    os.mkdir(f"{merged}/there")


def _mount_overlay(lower: str, directory: str, options: str) -> str:
    merged = f"{_SCRATCH}/merged-{os.getpid()}"
    for name in (f"{directory}/upper", f"{directory}/work", merged):
        os.mkdir(name)
    layers = f"lowerdir={lower},upperdir={directory}/upper,workdir={directory}/work,volatile"
    mount("overlay", merged, "overlay", 0, ",".join(filter(None, (layers, options))))
    return merged


def _overlay_on_host(directory: str, options: str, mode: str) -> str:
    os.mkdir(directory)
    # In a user namespace "/" has locked submounts, and cannot be cloned; some top-level directory has none.
    lowers = ("/",) if mode == "root" else ("/usr", "/opt", "/srv", "/etc")
    failure = SyscallError("mount", errno.ENOENT, "no top-level directory")
    for index, lower in enumerate(lowers):
        try:
            os.mkdir(f"{directory}/{index}")
            os.listdir(_mount_overlay(lower, f"{directory}/{index}", options))
        except SyscallError as error:
            failure = SyscallError(error.call, error.errno or 0, f"overlay on {lower}")
        else:
            return lower
    raise failure


def _time_namespace() -> None:
    unshare(CloneFlag.NEWTIME)
    with open("/proc/self/timens_offsets", "wb", buffering=0) as offsets:
        offsets.write(b"monotonic 1 0\n")


def _pidfd() -> None:
    # Joining takes rights over the namespace, and so one of this user namespace's.
    unshare(CloneFlag.NEWUTS)
    try:
        pidfd = os.pidfd_open(os.getpid())
    except AttributeError:
        # A Python built where the kernel's headers were older than 5.3.
        raise SyscallError("pidfd_open", errno.ENOSYS, "this Python was built without it") from None
    except OSError as error:
        raise SyscallError("pidfd_open", error.errno or 0) from error
    setns(pidfd, CloneFlag.NEWUTS)


def _networks() -> None:
    unshare(CloneFlag.NEWNET)
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    unshare(CloneFlag.NEWNET)
    mac, mtu = b"\x02\x42\x0a\x4d\x00\x01", 1500
    route = netlink.Route(netlink.open_route())
    route.ask((netlink.add_bridge(2, "bridge", mac, mtu),), "bridge")
    route.ask((netlink.add_veth(3, 2, 2, "eth0", mac, namespace, mtu),), "veth")


def _netem() -> None:
    unshare(CloneFlag.NEWNET)
    # RTM_NEWQDISC at the root of the loopback device, with the six numbers of struct tc_netem_qopt.
    root, kind, qopt = 0xFFFFFFFF, _attribute(1, b"netem\0"), _attribute(2, struct.pack("6I", 0, 1000, 0, 0, 0, 0))
    request, ack, exclusive, create = 1, 4, 0x200, 0x400
    body = struct.pack("BxxxiIII", socket.AF_UNSPEC, _LOOPBACK_INDEX, 0, root, 0) + kind + qopt
    _netlink(socket.NETLINK_ROUTE, 36, request | ack | exclusive | create, body, "sch_netem")


def _nft() -> None:
    unshare(CloneFlag.NEWNET)
    # NFT_MSG_GETGEN: the smallest question that nf_tables answers.
    request, subsystem, getgen = 1, 10, 16
    body = struct.pack("BBH", socket.AF_UNSPEC, 0, 0)
    _netlink(_NETLINK_NETFILTER, subsystem << 8 | getgen, request, body, "nf_tables")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _netlink(family: int, kind: int, flags: int, body: bytes, subject: str) -> None:
    """Send one netlink(7) message and raise what its answer says."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family) as asker:
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        asker.sendto(struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0) + body, (0, 0))
        answer = asker.recv(65536)
    nlmsg_error = 2
    code = -struct.unpack_from("i", answer, 16)[0] if struct.unpack_from("H", answer, 4)[0] == nlmsg_error else 0
    if code:
        raise SyscallError("netlink", code, subject)


if __name__ == "__main__":
    main(*sys.argv[1:])
