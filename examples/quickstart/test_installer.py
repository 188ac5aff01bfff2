"""An installer that is not to be trusted, let loose on a copy of this very machine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.mark.sandbox
def test_rm_rf_etc_leaves_the_host_alone() -> None:
    """No sandbox fixture is asked for, so this body runs inside."""
    subprocess.run(["rm", "-rf", "/etc"], check=False, capture_output=True)
    assert not os.path.exists("/etc/passwd")


def test_the_host_still_has_its_passwords() -> None:
    assert os.path.exists("/etc/passwd")


@pytest.mark.sandbox
def test_what_an_installer_writes_is_gone_with_the_test() -> None:
    Path("/etc/quickstart.conf").write_text("answer = 42\n")
    assert Path("/etc/quickstart.conf").read_text() == "answer = 42\n"


def test_and_the_host_never_saw_it() -> None:
    assert not os.path.exists("/etc/quickstart.conf")


@pytest.mark.sandbox
def test_an_installer_changes_what_it_says_and_nothing_else(sandbox) -> None:
    """The fixture is asked for, so this body drives the machine from outside."""
    sandbox.run("echo 'answer = 42' > /etc/quickstart.conf && rm /etc/hostname", check=True)
    changes = sandbox.changes()
    assert changes.added == ("/etc/quickstart.conf",)
    assert changes.deleted == ("/etc/hostname",)


@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg installs as root only")
@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="this is no Debian")
@pytest.mark.sandbox
def test_a_package_is_installed_and_gone(tmp_path: Path) -> None:
    tree = tmp_path / "hello"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/quickstart-hello").write_text("#!/bin/sh\necho hello\n")
    (tree / "usr/bin/quickstart-hello").chmod(0o755)
    (tree / "DEBIAN/control").write_text(
        "Package: quickstart-hello\nVersion: 1\nArchitecture: all\n"
        "Maintainer: you <you@example.org>\nDescription: hello\n"
    )
    subprocess.run(["dpkg-deb", "--build", str(tree)], check=True, capture_output=True)
    subprocess.run(["dpkg", "-i", f"{tree}.deb"], check=True, capture_output=True)
    assert subprocess.run(["quickstart-hello"], check=True, capture_output=True).stdout == b"hello\n"


def test_and_the_package_was_never_on_the_host() -> None:
    assert shutil.which("quickstart-hello") is None
