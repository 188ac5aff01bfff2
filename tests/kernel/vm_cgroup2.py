"""Run tests/kernel/cgroups in virtual machines: version 2 in its root, in a delegated group, and version 1.

    python tests/kernel/vm_cgroup2.py VMLINUZ

Wanted: qemu-system-x86_64, a static busybox (busybox-static) and a kernel that needs no modules to start, for instance
the one in Debian's linux-image-cloud-amd64. The machine has this interpreter, pytest, and no network. The exit
status is 0 when every test of every machine passed.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup", "tomli")
UNWANTED = shutil.ignore_patterns("__pycache__", "test", "idlelib", "tkinter", "lib2to3", "site-packages", "*-packages")
# The kernel hands `machine` to init as a variable.
MACHINES = {
    "root": "cgroup_no_v1=all",
    "nested": "cgroup_no_v1=all",
    "version1": "systemd.unified_cgroup_hierarchy=0",
}
TIMEOUT = 240
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp PYTHONPATH=/packages:/project/runtime PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=1777 tmpfs /tmp
if [ $machine = version1 ]; then
    mount -t tmpfs tmpfs /sys/fs/cgroup
    for controllers in cpu,cpuacct,cpuset memory pids freezer; do
        mkdir /sys/fs/cgroup/$controllers
        mount -t cgroup -o $controllers cgroup /sys/fs/cgroup/$controllers
    done
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
if [ $machine = nested ]; then
    mkdir -p /sys/fs/cgroup/slice/scope
    echo +memory +pids > /sys/fs/cgroup/cgroup.subtree_control
    echo +memory +pids > /sys/fs/cgroup/slice/cgroup.subtree_control
    echo 0 > /sys/fs/cgroup/slice/scope/cgroup.procs
fi
cd /project
@PYTHON@ -m pytest -p no:cacheprovider -rs -q tests/kernel/cgroups
echo "VERDICT $?"
find /sys/fs/cgroup -type d \\( -name 'test-*' -o -name 'pytest-sandbox-*' \\) -exec echo LEFT {} \\;
poweroff -f
"""


def main() -> int:
    """Start each machine and print what its tests said."""
    kernel = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        initramfs = pack(Path(folder))
        verdicts = {name: boot(kernel, initramfs, name) for name in MACHINES}
    print(*(f"{name}: {'passed' if passed else 'FAILED'}" for name, passed in verdicts.items()), sep="\n")
    return 0 if all(verdicts.values()) else 1


def pack(folder: Path) -> Path:
    """Return an initramfs with the interpreter, pytest, the package and the tests."""
    root, archive = folder / "root", folder / "initramfs"
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "packages"):
        (root / name).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), root / "bin/busybox")
    python = copy_interpreter(root)
    copy_packages(root / "packages")
    copy_project(root / "project")
    (root / "init").write_text(INIT.replace("@PYTHON@", python))
    (root / "init").chmod(0o755)
    with archive.open("wb") as out:
        subprocess.run("find . | busybox cpio -o -H newc", shell=True, cwd=root, stdout=out, check=True)
    return archive


def copy_interpreter(root: Path) -> str:
    """Copy this interpreter to the place where it is on this machine."""
    python = os.path.realpath(sys.executable)
    stdlib = sysconfig.get_path("stdlib")
    shutil.copytree(stdlib, root / stdlib[1:], ignore=UNWANTED)
    copy_file(python, root)
    for file in (python, *glob.glob(f"{stdlib}/lib-dynload/*.so")):
        for library in libraries_of(file):
            copy_file(library, root)
    return python


def libraries_of(file: str) -> list[str]:
    said = subprocess.run(["ldd", file], capture_output=True, text=True, check=True).stdout
    return re.findall(r"(/\S+) \(0x", said)


def copy_file(file: str, root: Path) -> None:
    target = root / file[1:]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def copy_packages(folder: Path) -> None:
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            continue
        if found.submodule_search_locations is None:
            shutil.copy(found.origin, folder)
        else:
            shutil.copytree(Path(found.origin).parent, folder / name, ignore=UNWANTED)


def copy_project(folder: Path) -> None:
    shutil.copytree(PROJECT / "runtime", folder / "runtime", ignore=UNWANTED)
    shutil.copy(PROJECT / "pyproject.toml", folder)
    # Without the conftest above, which skips: in here each test must be able to run.
    shutil.copytree(PROJECT / "tests/kernel/cgroups", folder / "tests/kernel/cgroups", ignore=UNWANTED)


def boot(kernel: str, initramfs: Path, machine: str) -> bool:
    """Start ``machine`` and return whether its tests passed and left no group behind."""
    print(f"--- {machine}", flush=True)
    # Emulated: KVM inside of a virtual machine is there to be seen on some hosts and hangs.
    # fmt: off
    argv = [
        "qemu-system-x86_64", "-accel", "tcg", "-m", "1024", "-smp", "2", "-nographic", "-no-reboot",
        "-nic", "none", "-kernel", kernel, "-initrd", str(initramfs),
        "-append", f"console=ttyS0 quiet panic=-1 {MACHINES[machine]} machine={machine}",
    ]
    # fmt: on
    process = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False)
    said = process.stdout.decode(errors="replace").replace("\r", "")
    print(said, process.stderr.decode(errors="replace"), flush=True)
    return "\nVERDICT 0\n" in said and "\nLEFT " not in said


if __name__ == "__main__":
    sys.exit(main())
