"""What the hints say on hosts made of files, what the table looks like, and what a test that lacks something does."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox.cli.doctor import describe, verdict
from pytest_sandbox_runtime.capabilities import Capability, explain, names
from pytest_sandbox_runtime.hints import Host, kernel_version
from pytest_sandbox_runtime.rootfs.layer import MACHINE_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeHost = Callable[..., str]

CONFTEST = Path(__file__).parents[1] / "conftest.py"
FIRST = {"user": 4026531837, "uts": 4026531838, "ipc": 4026531839, "pid": 4026531836, "net": 1, "mnt": 1, "cgroup": 1}
STATUS = "Name:\tpython\nUid:\t{0}\t{0}\t{0}\t{0}\nNoNewPrivs:\t0\nCapEff:\t{1}\nSeccomp:\t{2}\n"
ALL_CAPABILITIES = "000001ffffffffff"
ROOT_MOUNT = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"


@pytest.fixture
def make_host(tmp_path: Path) -> MakeHost:
    """Write what a host has below a directory, and return the directory."""

    def make(
        *,
        uid: int = 1000,
        capabilities: str = "0",
        seccomp: int = 0,
        other_namespaces: tuple[str, ...] = (),
        mountinfo: str = ROOT_MOUNT,
        **files: str,
    ) -> str:
        namespaces = tmp_path / "proc/self/ns"
        namespaces.mkdir(parents=True)
        for kind, number in FIRST.items():
            (namespaces / kind).symlink_to(f"{kind}:[{4026532000 if kind in other_namespaces else number}]")
        write(tmp_path, "proc/self/status", STATUS.format(uid, capabilities, seccomp))
        write(tmp_path, "proc/self/mountinfo", mountinfo)
        for path, content in files.items():
            write(tmp_path, path, content)
        return str(tmp_path)

    return make


def write(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def in_container(mark: str) -> dict[str, object]:
    return {mark: "", "other_namespaces": ("pid", "uts", "ipc", "mnt"), "seccomp": 2}


def test_a_refused_user_namespace_names_debians_sysctl(make_host: MakeHost) -> None:
    root = make_host(**{"proc/sys/kernel/unprivileged_userns_clone": "0\n"})
    assert "sudo sysctl -w kernel.unprivileged_userns_clone=1" in explain("unshare", errno.EPERM, root=root)


@pytest.mark.parametrize("call", ["unshare", "write", ""])
def test_a_refused_user_namespace_names_ubuntus_restriction(make_host: MakeHost, call: str) -> None:
    root = make_host(**{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"})
    hint = explain(call, errno.EPERM, root=root)
    assert "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in hint
    assert "/etc/sysctl.d/" in hint


def test_what_holds_ordinary_users_back_is_not_told_to_root(make_host: MakeHost) -> None:
    files = {"proc/sys/kernel/unprivileged_userns_clone": "0\n"}
    assert explain("unshare", errno.EPERM, root=make_host(uid=0, capabilities=ALL_CAPABILITIES, **files)) == ""


def test_several_obstacles_are_told_together(make_host: MakeHost) -> None:
    files = {
        "proc/sys/kernel/unprivileged_userns_clone": "0\n",
        "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n",
    }
    hint = explain("unshare", errno.EPERM, root=make_host(**files))
    assert "unprivileged_userns_clone=1; and AppArmor" in hint


@pytest.mark.parametrize(
    ("mark", "kind", "mend"),
    [
        (".dockerenv", "Docker", "--security-opt seccomp=unconfined"),
        ("run/.containerenv", "podman", "--security-opt unmask=ALL"),
        ("var/run/secrets/kubernetes.io/token", "Kubernetes", "procMount: Unmasked"),
        ("no-mark", "a container", "an unmasked /proc"),
    ],
)
def test_in_a_container_the_hint_says_how_to_start_it(make_host: MakeHost, mark: str, kind: str, mend: str) -> None:
    root = make_host(**in_container(mark))
    hint = explain("unshare", errno.EPERM, root=root)
    assert f"inside {kind}" in hint
    assert mend in hint
    assert "snap" not in hint


def in_sandbox(**files: str) -> dict[str, object]:
    machine_id = {"etc/machine-id": f"{MACHINE_ID}\n"}
    return {"other_namespaces": ("pid", "uts", "ipc", "mnt"), "seccomp": 2, **machine_id, **files}


@pytest.mark.parametrize("mark", [".dockerenv", "proc/version"])
def test_in_a_sandbox_the_hint_names_the_word_whatever_the_machine_is(make_host: MakeHost, mark: str) -> None:
    root = make_host(**in_sandbox(**{mark: "microsoft"}))
    hint = explain("unshare", errno.EPERM, root=root)
    assert hint.startswith("this is inside a sandbox: give that sandbox nesting=True")
    assert "sandbox_nesting = true" in hint


def test_a_machine_that_has_kept_the_id_of_a_sandbox_is_none(make_host: MakeHost) -> None:
    root = make_host(**{"etc/machine-id": MACHINE_ID})
    assert not Host(root).is_sandbox()
    assert explain("open", errno.EROFS, root=root) == ""


@pytest.mark.parametrize(("call", "code"), [("mount", errno.EINVAL), ("", errno.EROFS)])
def test_a_sandbox_nested_too_deep_is_told_so(make_host: MakeHost, call: str, code: int) -> None:
    assert "overlayfs stacks two deep" in explain(call, code, root=make_host(**in_sandbox()))


def test_a_masked_proc_in_a_container_is_named(make_host: MakeHost) -> None:
    masked = ROOT_MOUNT + "30 22 0:5 / /proc rw - proc proc rw\n31 30 0:6 / /proc/kcore rw - tmpfs tmpfs rw\n"
    hint = explain("mount", errno.EPERM, root=make_host(mountinfo=masked, **in_container(".dockerenv")))
    assert "/proc/kcore is covered" in hint
    assert "--security-opt systempaths=unconfined" in hint


def test_a_masked_proc_without_a_container_is_to_be_uncovered(make_host: MakeHost) -> None:
    masked = ROOT_MOUNT + "30 22 0:5 / /proc rw - proc proc rw\n31 30 0:6 / /proc/kcore rw - tmpfs tmpfs rw\n"
    assert "sudo umount /proc/kcore" in explain("mount", errno.EPERM, root=make_host(mountinfo=masked))


def test_a_filter_without_a_container_is_named(make_host: MakeHost) -> None:
    hint = explain("unshare", errno.EPERM, root=make_host(seccomp=2))
    assert "Seccomp: 2 in /proc/self/status" in hint


def test_a_chroot_is_named(make_host: MakeHost) -> None:
    inside = "30 22 0:5 / /proc rw - proc proc rw\n"
    assert "chroot(2)" in explain("unshare", errno.EPERM, root=make_host(mountinfo=inside))


def test_a_limit_of_no_namespaces_is_named(make_host: MakeHost) -> None:
    root = make_host(**{"proc/sys/user/max_user_namespaces": "0\n", "proc/sys/user/max_net_namespaces": "9\n"})
    hint = explain("unshare", errno.ENOSPC, root=root)
    assert hint == "user.max_user_namespaces is 0: sudo sysctl -w user.max_user_namespaces=15000"


def test_exhausted_namespaces_name_the_lowest_limit(make_host: MakeHost) -> None:
    root = make_host(**{"proc/sys/user/max_user_namespaces": "500\n", "proc/sys/user/max_net_namespaces": "90\n"})
    assert "sudo sysctl -w user.max_net_namespaces=360" in explain("unshare", errno.ENOSPC, root=root)


def test_exhausted_namespaces_without_a_readable_limit_are_told_all_the_same(make_host: MakeHost) -> None:
    assert "as many namespaces as allowed exist" in explain("unshare", errno.ENOSPC, root=make_host())


def test_a_kernel_without_a_namespace_is_told_its_option(make_host: MakeHost) -> None:
    root = make_host()
    Path(root, "proc/self/ns/user").unlink()
    assert "CONFIG_USER_NS" in explain("unshare", errno.EINVAL, root=root)


@pytest.mark.parametrize(
    ("release", "uid", "hint"),
    [
        ("5.10.0-28-amd64\n", 1000, "overlayfs without root needs Linux 5.11, and this is 5.10.0-28-amd64"),
        ("6.1.0-18-amd64\n", 1000, "set PYTEST_SANDBOX_HOME"),
        ("5.10.0-28-amd64\n", 0, "set PYTEST_SANDBOX_HOME"),
    ],
)
def test_a_refused_overlay_names_kernel_or_place(make_host: MakeHost, release: str, uid: int, hint: str) -> None:
    rights = ALL_CAPABILITIES if uid == 0 else "0"
    root = make_host(uid=uid, capabilities=rights, **{"proc/sys/kernel/osrelease": release})
    assert hint in explain("mount", errno.EINVAL, root=root)


def test_a_kernel_without_overlayfs_is_told_the_module(make_host: MakeHost) -> None:
    root = make_host(**{"proc/filesystems": "nodev\ttmpfs\n\text4\n"})
    assert "sudo modprobe overlay" in explain("mount", errno.ENODEV, root=root)


def test_a_refused_fork_names_the_limits_of_user_and_cgroup(make_host: MakeHost) -> None:
    files = {"proc/self/cgroup": "0::/user.slice\n", "sys/fs/cgroup/./user.slice/pids.max": "77\n"}
    hint = explain("", errno.EAGAIN, root=make_host(**files))
    assert "ulimit -u is" in hint
    assert "pids.max=77" in hint


def test_the_pids_limit_of_version_1_is_found_too(make_host: MakeHost) -> None:
    files = {"proc/self/cgroup": "8:pids:/docker/1\n0::/\n", "sys/fs/cgroup/pids/docker/1/pids.max": "100\n"}
    assert "pids.max=100" in explain("fork", errno.EAGAIN, root=make_host(**files))


@pytest.mark.parametrize(
    ("call", "code", "hint"),
    [
        ("mount", errno.ENOSPC, "sudo sysctl -w fs.mount-max=40"),
        ("fork", errno.ENOMEM, "no memory left"),
        ("", errno.EMFILE, "ulimit -n"),
        ("mkdir", errno.ENOSPC, "PYTEST_SANDBOX_HOME"),
        ("seccomp", errno.EINVAL, "CONFIG_SECCOMP_FILTER"),
        ("pivot_root", errno.EINVAL, "initramfs"),
    ],
)
def test_other_refusals_have_a_hint(make_host: MakeHost, call: str, code: int, hint: str) -> None:
    root = make_host(mountinfo="1 1 0:2 / / rw - rootfs rootfs rw\n", **{"proc/sys/fs/mount-max": "10\n"})
    assert hint in explain(call, code, root=root)


def test_a_container_with_an_old_profile_refuses_new_calls(make_host: MakeHost) -> None:
    root = make_host(**in_container(".dockerenv"))
    assert "Docker before 20.10" in explain("pidfd_open", errno.EPERM, root=root)


@pytest.mark.parametrize("call", ["unshare", "mount", "fork", "nonsense", ""])
def test_what_nothing_is_known_about_has_no_hint(make_host: MakeHost, call: str) -> None:
    root = make_host()
    assert explain(call, errno.EXDEV, root=root) == ""
    assert explain(call, errno.EPERM, root=root) == ""


def test_a_host_of_no_files_breaks_no_hint(tmp_path: Path) -> None:
    for call in ("unshare", "mount", "fork", "setns", "pivot_root", "seccomp", "openat2", ""):
        for code in errno.errorcode:
            assert isinstance(explain(call, code, root=str(tmp_path)), str)


def test_a_dockerenv_that_outlived_its_container_is_no_container(make_host: MakeHost) -> None:
    assert Host(make_host(**{".dockerenv": ""})).container() == ""


def test_wsl_is_told_from_a_container(make_host: MakeHost) -> None:
    version = "Linux version 5.15.153.1-microsoft-standard-WSL2 (root@x) (gcc 11.2.0)"
    assert Host(make_host(other_namespaces=("pid", "uts"), **{"proc/version": version})).container() == "WSL2"


@pytest.mark.parametrize(
    ("uid", "capabilities", "other_namespaces", "privileged"),
    [
        (0, ALL_CAPABILITIES, (), True),
        (0, "000001fffeffffff", (), True),
        (1000, "0", (), False),
        (1000, ALL_CAPABILITIES, (), False),
        (0, "00000000a80425fb", (), False),
        (0, "00000000a82425fb", (), False),
        (0, ALL_CAPABILITIES, ("user",), False),
    ],
    ids=["root", "less-one", "user", "ambient", "in-docker", "with-sys-admin-only", "of-a-user-namespace"],
)
def test_privileged_is_root_with_all_that_a_sandbox_takes(
    make_host: MakeHost, *, uid: int, capabilities: str, other_namespaces: tuple[str, ...], privileged: bool
) -> None:
    root = make_host(uid=uid, capabilities=capabilities, other_namespaces=other_namespaces)
    assert Host(root).is_privileged() is privileged


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-18-amd64", (6, 1)), ("5.15.153.1-microsoft-standard-WSL2", (5, 15)), ("6.12-rc1", (6, 12)), ("x", ())],
)
def test_a_release_has_two_numbers(release: str, version: tuple[int, ...]) -> None:
    assert kernel_version(release) == version


def test_importing_probes_nothing() -> None:
    code = (
        "import sys, subprocess\n"
        "sys.addaudithook(lambda name, _: name in ('subprocess.Popen', 'os.fork') and sys.exit('started a process'))\n"
        "from pytest_sandbox_runtime import capabilities\n"
        "assert capabilities.probe.cache_info().currsize == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


ROW = Capability("netem", available=False, reason="ENOENT", mend="sudo modprobe sch_netem")


def test_a_row_that_is_to_be_mended_is_a_no_with_its_mend_below() -> None:
    assert describe([ROW]) == ["no  netem  ENOENT", "       ->  sudo modprobe sch_netem"]


def test_a_row_that_needs_no_mend_is_a_dash() -> None:
    assert describe([replace(ROW, mend="")]) == ["-   netem  ENOENT"]


def test_a_required_row_is_a_no_even_without_a_mend() -> None:
    assert describe([replace(ROW, mend="", required=True)]) == ["no  netem  ENOENT"]


def test_a_row_that_is_there_is_ok() -> None:
    assert describe([replace(ROW, available=True)]) == ["ok  netem  ENOENT"]


def test_a_long_row_is_wrapped_and_its_paths_stay_whole() -> None:
    path = "/" + "x" * 120
    lines = describe([replace(ROW, reason="word " * 40 + path, mend="word " * 40)])
    assert path in [line.strip() for line in lines]
    assert all(len(line) <= 100 for line in lines if path not in line)


def test_the_last_line_names_what_is_missing() -> None:
    assert verdict([ROW, replace(ROW, name="proc")]) == "The main job cannot run here: netem, proc"
    assert verdict([]).startswith("The main job can run here")


def run_needing(tmp_path: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = needs\n")
    (tmp_path / "test_it.py").write_text(f"import pytest\n@pytest.mark.needs({name!r})\ndef test_it(): pass\n")
    base = {key: value for key, value in os.environ.items() if key not in ("SANDBOX_MUST_RUN", "SANDBOX_MAY_LACK")}
    command = [sys.executable, "-m", "pytest", "-p", "no:sandbox", "-p", "no:cacheprovider", "-ra", str(tmp_path)]
    return subprocess.run(command, env={**base, **environment}, capture_output=True, text=True, check=False)


def test_a_need_that_the_table_does_not_know_is_an_error(tmp_path: Path) -> None:
    ran = run_needing(tmp_path, "overlays")
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert "test_it.py::test_it needs overlays, but doctor's table has only: linux, kernel" in ran.stderr


def test_a_need_that_the_host_lacks_skips_with_the_reason(tmp_path: Path) -> None:
    ran = run_needing(tmp_path, "perpetual-motion")
    assert ran.returncode == pytest.ExitCode.OK
    assert "this host lacks perpetual-motion (no host has it)" in ran.stdout


def test_a_need_that_the_host_lacks_fails_where_all_must_run(tmp_path: Path) -> None:
    ran = run_needing(tmp_path, "perpetual-motion", SANDBOX_MUST_RUN="1")
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED


def test_what_may_be_lacking_is_skipped_where_all_must_run(tmp_path: Path) -> None:
    ran = run_needing(tmp_path, "perpetual-motion", SANDBOX_MUST_RUN="1", SANDBOX_MAY_LACK="netem perpetual-motion")
    assert ran.returncode == pytest.ExitCode.OK
    assert "this host lacks perpetual-motion (no host has it)" in ran.stdout


def test_the_table_has_each_name_once() -> None:
    assert len(set(names())) == len(names())
