"""Where the store is, and whose it may be."""

from __future__ import annotations

import os
import pickle
import pwd
import stat
from pathlib import Path

import pytest

from pytest_sandbox_runtime.errors import SandboxError
from pytest_sandbox_runtime.images.home import default_store
from pytest_sandbox_runtime.images.store import Store
from tests.unit.children import NOBODY, child_of, end_of


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"PYTEST_SANDBOX_HOME": "/srv/store", "XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/srv/store"),
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/pytest-sandbox"),
        ({"PYTEST_SANDBOX_HOME": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/pytest-sandbox"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/pytest-sandbox"),
        ({}, f"{pwd.getpwuid(os.geteuid()).pw_dir}/.cache/pytest-sandbox"),
    ],
)
def test_the_store_is_where_the_environment_says(environ: dict[str, str], expected: str) -> None:
    assert default_store(environ) == expected


def test_a_relative_home_of_the_store_is_made_absolute() -> None:
    assert default_store({"PYTEST_SANDBOX_HOME": "mine"}) == os.path.join(os.getcwd(), "mine")


@pytest.mark.needs("root")
def test_a_user_without_a_home_is_told_what_to_set() -> None:
    def check() -> None:
        os.setresuid(54321, 54321, 54321)
        with pytest.raises(SandboxError, match="HOME is not set and user 54321 has no passwd entry") as caught:
            default_store({})
        assert "PYTEST_SANDBOX_HOME" in caught.value.hint

    assert end_of(child_of(check)) == 0


def test_a_store_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store(str(tmp_path / "new/cache/store"))
    finally:
        os.umask(before)
    for path in [Path(store.path), *Path(store.path).iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_store_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(SandboxError, match="can be written by other users") as caught:
        Store(str(tmp_path))
    assert f"chmod 700 {tmp_path}" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("root")
def test_a_store_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    with pytest.raises(SandboxError, match=f"belongs to user {NOBODY}, and this is user 0") as caught:
        Store(str(tmp_path))
    assert "sudo" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_made_is_an_error_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError, match=r"the store .*/file/store cannot be used: File exists") as caught:
        Store(str(tmp_path / "file/store"))
    assert "PYTEST_SANDBOX_HOME" in caught.value.hint
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_store_that_cannot_be_written_is_an_error_with_its_mend(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    def check() -> None:
        os.chdir(tmp_path)  # what is above it is closed to other users
        if os.geteuid() == 0:
            os.setresuid(NOBODY, NOBODY, NOBODY)
        else:
            tmp_path.chmod(0o555)
        with pytest.raises(SandboxError, match="cannot be used: Permission denied") as caught:
            Store("store")
        assert "PYTEST_SANDBOX_HOME" in caught.value.hint

    assert end_of(child_of(check)) == 0
