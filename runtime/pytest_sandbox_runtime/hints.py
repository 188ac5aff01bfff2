"""What to do about a system call that said no while a sandbox was made: looked up on this host, with what to type.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import errno
import os
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.kernel.capabilities import Capability, mask
from pytest_sandbox_runtime.rootfs.layer import MACHINE_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    Advise = Callable[["Host"], str]

# What making namespaces, mounts, devices, files of other owners and a raised loopback takes.
_NEEDED = mask(
    (
        Capability.SYS_ADMIN,
        Capability.NET_ADMIN,
        Capability.SYS_CHROOT,
        Capability.SETUID,
        Capability.SETGID,
        Capability.SETPCAP,
        Capability.MKNOD,
        Capability.CHOWN,
        Capability.DAC_OVERRIDE,
        Capability.FOWNER,
    )
)
# The kernel gives its first namespaces these numbers: PROC_*_INIT_INO of linux/proc_ns.h.
_FIRST = {"ipc": "ipc:[4026531839]", "uts": "uts:[4026531838]", "user": "user:[4026531837]", "pid": "pid:[4026531836]"}
_KINDS = ("user", "pid", "net", "mnt", "uts", "ipc", "cgroup")
APPARMOR = "kernel.apparmor_restrict_unprivileged_userns"
_DEBIAN = "kernel.unprivileged_userns_clone"
SANDBOX = "a sandbox"
_LOOSEN = {
    SANDBOX: "give that sandbox nesting=True, or with pytest --sandbox set sandbox_nesting = true in the ini file",
    "Docker": "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined, or with --privileged",
    "podman": "start the container with --security-opt seccomp=unconfined --security-opt label=disable "
    "--security-opt unmask=ALL, or with --privileged",
    "Kubernetes": "give the container's securityContext seccompProfile: {type: Unconfined}, appArmorProfile: {type: "
    "Unconfined} and procMount: Unmasked (with hostUsers: false in the pod's spec), or privileged: true",
    "LXC": "on its host: lxc config set CONTAINER security.nesting=true, and restart it",
}
_LOOSEN_ANY = "start the container without its seccomp and AppArmor profiles and with an unmasked /proc, or privileged"


@dataclass(frozen=True)
class Host:
    """What can be read about the machine whose files are below ``root``; None and "" for what is not there."""

    root: str = "/"

    def read(self, path: str) -> str:
        """Return the content of the file ``path``."""
        try:
            with open(os.path.join(self.root, path), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def sysctl(self, name: str) -> str:
        """Return the value of a kernel parameter, such as ``user.max_user_namespaces``."""
        return self.read("proc/sys/" + name.replace(".", "/")).strip()

    def status(self, field: str) -> str:
        """Return what /proc/self/status has under ``field``."""
        for line in self.read("proc/self/status").splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return value.strip()
        return ""

    def is_in_first(self, kind: str) -> bool:
        """Whether this process is in the namespace of this kind that the kernel booted with."""
        try:
            return os.readlink(os.path.join(self.root, "proc/self/ns", kind)) == _FIRST[kind]
        except OSError:
            return False

    def is_privileged(self) -> bool:
        """Whether namespaces, mounts and devices can be made directly: as root, and not only of a user namespace."""
        uids, effective = self.status("Uid").split(), int(self.status("CapEff") or "0", 16)
        return uids[1:2] == ["0"] and effective & _NEEDED == _NEEDED and self.is_in_first("user")

    def is_sandbox(self) -> bool:
        """Whether this process is in a sandbox of this project."""
        return not self.is_in_first("pid") and self.read("etc/machine-id").strip() == MACHINE_ID

    def container(self) -> str:
        """Return what contains this process: a sandbox, Docker, podman, Kubernetes, LXC, WSL2, a container, or ""."""
        # First: what marks the others is in a copy of them, too.
        if self.is_sandbox():
            return SANDBOX
        if "microsoft" in self.read("proc/version").lower():
            return "WSL2"
        # The marks outlive their container where its file system has become a machine's.
        if all(self.is_in_first(kind) for kind in ("pid", "uts", "ipc")):
            return ""
        return self._marked() or ("" if self.is_in_first("pid") else "a container")

    def _marked(self) -> str:
        if os.path.exists(os.path.join(self.root, "var/run/secrets/kubernetes.io")):
            return "Kubernetes"
        if os.path.exists(os.path.join(self.root, "run/.containerenv")):
            return "podman"
        if os.path.exists(os.path.join(self.root, ".dockerenv")):
            return "Docker"
        return "LXC" if "container=lxc" in self.read("proc/1/environ").split("\0") else ""

    def mount_points(self) -> list[str]:
        """Return where something is mounted, the first mounted first."""
        return [line.split(" ")[4] for line in self.read("proc/self/mountinfo").splitlines()]

    def pids_max(self) -> str:
        """Return the limit of processes of this process's cgroup, or ""."""
        for line in self.read("proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            mount = "pids" if controllers == "pids" else "." if not controllers else ""
            limit = mount and self.read(f"sys/fs/cgroup/{mount}{path}/pids.max").strip()
            if limit and limit != "max":
                return limit
        return ""


def explain(call: str, code: int, *, root: str = "/") -> str:
    """Return what to do about ``call`` having failed with errno ``code`` while a sandbox was made, or "".

    ``call`` may be "" for what the standard library called; ``root`` is where proc and the rest are looked for.
    """
    host = Host(root)
    for calls, codes, advise in _ADVICE:
        if call in calls and code in codes:
            hint = advise(host)
            if hint:
                return hint
    return ""


def _refused_namespaces(host: Host) -> str:
    for_users = () if host.is_privileged() else (_debian_refuses, apparmor_refuses)
    finders = (*for_users, _container_refuses, _filter_refuses, _chroot_refuses)
    return "; and ".join(text for find in finders if (text := find(host)))


def _debian_refuses(host: Host) -> str:
    if host.sysctl(_DEBIAN) != "0":
        return ""
    return f"{_DEBIAN}=0 keeps user namespaces for root: sudo sysctl -w {_DEBIAN}=1"


def apparmor_refuses(host: Host) -> str:
    """Return what lifts the restriction of user namespaces that Ubuntu has, or "" where it is not in force."""
    if host.sysctl(APPARMOR) != "1":
        return ""
    return (
        f"AppArmor keeps user namespaces, as on Ubuntu since 23.10, for programs with a profile that allows them: "
        f"sudo sysctl -w {APPARMOR}=0 (and for good: echo {APPARMOR}=0 | sudo tee /etc/sysctl.d/60-userns.conf)"
    )


def _container_refuses(host: Host) -> str:
    kind = host.container()
    if kind in ("", "WSL2"):
        return ""
    return f"this is inside {kind}: {_LOOSEN.get(kind, _LOOSEN_ANY)}"


def _filter_refuses(host: Host) -> str:
    if host.status("Seccomp") != "2" or _container_refuses(host):
        return ""
    return (
        "a seccomp filter is on this process (Seccomp: 2 in /proc/self/status): start pytest outside of what put it "
        "there, such as a snap, a flatpak or a systemd service with RestrictNamespaces= or SystemCallFilter="
    )


def _chroot_refuses(host: Host) -> str:
    points = host.mount_points()
    # A process in a chroot(2) sees only what is mounted below its root, and the kernel gives it no user namespace.
    if not points or "/" in points:
        return ""
    return "this is inside a chroot(2), where there are no user namespaces: enter it with pivot_root(2), as bwrap does"


def _too_many_namespaces(host: Host) -> str:
    limits = {f"user.max_{kind}_namespaces": host.sysctl(f"user.max_{kind}_namespaces") for kind in _KINDS}
    zero = [name for name, limit in limits.items() if limit == "0"]
    if zero:
        settings = " ".join(f"{name}=15000" for name in zero)
        return f"{' and '.join(zero)} {'is' if len(zero) == 1 else 'are'} 0: sudo sysctl -w {settings}"
    told = "as many namespaces as allowed exist, or they are nested 32 deep: close sandboxes earlier"
    numbers = [(int(limit), name) for name, limit in limits.items() if limit.isdigit()]
    if not numbers:
        return told
    lowest, name = min(numbers)
    return f"{told}, or raise the lowest limit, {name}={lowest}: sudo sysctl -w {name}={lowest * 4}"


def _kernel_without_namespaces(host: Host) -> str:
    there = os.path.join(host.root, "proc/self/ns")
    missing = [kind for kind in _KINDS if os.path.isdir(there) and not os.path.lexists(os.path.join(there, kind))]
    if not missing:
        return ""
    options = ", ".join(f"CONFIG_{kind.upper()}_NS" for kind in missing).replace("CONFIG_MNT_NS", "CONFIG_NAMESPACES")
    return (
        f"this kernel was built without {options.replace('CONFIG_CGROUP_NS', 'CONFIG_CGROUPS')}: boot one that has it"
    )


def _refused_mount(host: Host) -> str:
    masked = [point for point in host.mount_points() if point.startswith(("/proc/", "/sys/firmware"))]
    kind = host.container()
    # user_namespaces(7): a new proc may show no more than the one that is there, and masks hide some of that.
    covered = f"{masked[0]} is covered, so the kernel grants no fresh /proc or /sys; " if masked else ""
    if kind not in ("", "WSL2"):
        return f"{covered}{_container_refuses(host)}"
    if not host.is_privileged() and apparmor_refuses(host):
        return apparmor_refuses(host)
    if host.is_privileged() or not masked:
        return ""
    return f"{covered}uncover it with sudo umount {' '.join(reversed(masked))}"


def _refused_overlay(host: Host) -> str:
    if host.is_sandbox():
        return _nested_too_deep(host)
    release = os.uname().release if host.root == "/" else host.read("proc/sys/kernel/osrelease").strip()
    if not host.is_privileged() and kernel_version(release) < (5, 11):
        return f"overlayfs without root needs Linux 5.11, and this is {release}: run as root, or on a newer kernel"
    return (
        "the kernel log (sudo dmesg) has the reason; overlayfs takes its upper directory from ext4, xfs, btrfs or "
        "tmpfs, not from another overlay or NFS: set PYTEST_SANDBOX_HOME to a directory on one of those"
    )


def _nested_too_deep(host: Host) -> str:
    if not host.is_sandbox():
        return ""
    return (
        "overlayfs stacks two deep, and in a sandbox of root's the second has a read-only /proc: there is room for a "
        "sandbox in a sandbox, where the files of the machine itself are on no overlay, as a container's are, but for "
        "none in that"
    )


def _missing_file_system(host: Host) -> str:
    there = host.read("proc/filesystems").split()
    if not there or "overlay" in there:
        return ""
    return "this kernel has no overlayfs: sudo modprobe overlay, or boot one with CONFIG_OVERLAY_FS"


def _too_many_mounts(host: Host) -> str:
    limit = host.sysctl("fs.mount-max")
    if not limit.isdigit():
        return ""
    return f"a mount namespace holds at most fs.mount-max={limit} mounts: sudo sysctl -w fs.mount-max={int(limit) * 4}"


def _too_many_processes(host: Host) -> str:
    soft, hard = (str(limit) if limit != resource.RLIM_INFINITY else "unlimited" for limit in _processes())
    group = host.pids_max()
    told = f", and this process's cgroup has pids.max={group}" if group else ""
    return (
        f"as many processes as allowed exist: ulimit -u is {soft} (at most {hard}) for all of this user's processes"
        f"{told}; raise it, or close sandboxes earlier"
    )


def _processes() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_NPROC)


def _too_little_memory(_: Host) -> str:
    return "this machine, or the cgroup of this process, has no memory left: close sandboxes earlier"


def _too_many_files(_: Host) -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"as many descriptors as allowed are open: ulimit -n is {soft} (at most {hard}); raise it: ulimit -n {hard}"


def _full_disk(_: Host) -> str:
    return "the file system of the store is full: pytest-sandbox prune, or set PYTEST_SANDBOX_HOME to a larger one"


def _kernel_without_seccomp(host: Host) -> str:
    if os.uname().machine not in ("x86_64", "aarch64") and host.root == "/":
        return f"the filter is made for x86_64 and aarch64, and this is {os.uname().machine}"
    return "this kernel takes no seccomp filter: boot one with CONFIG_SECCOMP_FILTER"


def _old_profile(host: Host) -> str:
    container = _container_refuses(host)
    if container:
        return f"{container}; Docker before 20.10 and libseccomp before 2.5 know no calls of Linux 5.3 and later"
    return _filter_refuses(host)


def _initramfs(host: Host) -> str:
    for line in host.read("proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        if left.split(" ")[4] == "/" and right.split(" ")[0] in ("rootfs", "ramfs"):
            return "this machine runs from its initramfs, which pivot_root(2) cannot leave: use switch_root(8) first"
    return ""


def kernel_version(release: str) -> tuple[int, ...]:
    """Return the first two numbers of ``release``, as in uname(2)."""
    numbers = release.replace("-", ".").split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())


_NAMESPACE_CALLS = ("unshare", "clone", "setns", "open", "write", "")
_FORK_CALLS = ("fork", "clone", "posix_spawn", "unshare", "")
_REFUSED = (errno.EPERM, errno.EACCES)
_ADVICE: tuple[tuple[tuple[str, ...], tuple[int, ...], Advise], ...] = (
    ((*_NAMESPACE_CALLS, "sethostname"), _REFUSED, _refused_namespaces),
    (("unshare", "clone"), (errno.ENOSPC, errno.EUSERS), _too_many_namespaces),
    (("unshare", "clone"), (errno.EINVAL, errno.ENOSYS), _kernel_without_namespaces),
    (("mount",), _REFUSED, _refused_mount),
    (_NAMESPACE_CALLS, (errno.EROFS,), _nested_too_deep),
    # What is written below /proc/sys, where a container has that read-only.
    (("",), (errno.EROFS,), _refused_mount),
    (("mount",), (errno.EINVAL, errno.EOPNOTSUPP), _refused_overlay),
    (("mount",), (errno.ENODEV,), _missing_file_system),
    (("mount",), (errno.ENOSPC,), _too_many_mounts),
    (("pivot_root",), (errno.EINVAL,), _initramfs),
    (_FORK_CALLS, (errno.EAGAIN,), _too_many_processes),
    (("fork", "clone", "posix_spawn", "unshare", "mount", ""), (errno.ENOMEM,), _too_little_memory),
    (("", "open", "socketpair", "pipe2"), (errno.EMFILE, errno.ENFILE), _too_many_files),
    (("", "mkdir", "write", "open"), (errno.ENOSPC, errno.EDQUOT), _full_disk),
    (("seccomp", "prctl"), (errno.EINVAL, errno.ENOSYS), _kernel_without_seccomp),
    (("pidfd_open", "setns", "openat2", "close_range"), (*_REFUSED, errno.ENOSYS), _old_profile),
)
