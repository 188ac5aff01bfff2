"""Where credentials come from, where they are written, and that nobody is told what they are."""

from __future__ import annotations

import base64
import json
import os
import pickle
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import RegistryError
from pytest_sandbox_runtime.images.registry.credentials import AuthFile, Credential, Keyring
from pytest_sandbox_runtime.images.registry.login import forget, remember

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cret"


def auth(name: str, password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


def write(path: Path, **fields: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))
    return str(path)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "PATH": os.environ["PATH"]}


def test_files_are_asked_in_their_order(environ: dict[str, str], tmp_path: Path) -> None:
    def found() -> str | None:
        credential = Keyring(environ).find("a.example", "b/c").credential
        return credential.username if credential else None

    assert found() is None
    write(tmp_path / "home/.docker/config.json", auths={"a.example": auth("docker")})
    assert found() == "docker"
    write(tmp_path / "home/.config/containers/auth.json", auths={"a.example": auth("podman")})
    assert found() == "podman"
    write(tmp_path / "run/containers/auth.json", auths={"a.example": auth("runtime")})
    assert found() == "runtime"
    environ["DOCKER_CONFIG"] = os.path.dirname(
        write(tmp_path / "named/config.json", auths={"a.example": auth("DOCKER_CONFIG")})
    )
    assert found() == "DOCKER_CONFIG"
    environ["REGISTRY_AUTH_FILE"] = write(tmp_path / "x.json", auths={"a.example": auth("REGISTRY_AUTH_FILE")})
    assert found() == "REGISTRY_AUTH_FILE"
    environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {"a.example": auth("DOCKER_AUTH_CONFIG")}})
    assert found() == "DOCKER_AUTH_CONFIG"


@pytest.mark.parametrize(
    ("key", "host", "repository"),
    [
        ("a.example", "a.example", "b"),
        ("https://a.example", "a.example", "b"),
        ("http://a.example/v2/", "a.example", "b"),
        ("https://a.example:5000/v1/", "a.example:5000", "b"),
        ("https://index.docker.io/v1/", "docker.io", "library/debian"),
        ("docker.io", "docker.io", "library/debian"),
        ("registry-1.docker.io", "docker.io", "a/b"),
        ("docker.io/a", "docker.io", "a/b"),
        ("a.example/b/c", "a.example", "b/c"),
        ("a.example/b", "a.example", "b/c"),
        ("[::1]:5000", "[::1]:5000", "b"),
    ],
)
def test_keys_are_written_in_many_ways(key: str, host: str, repository: str) -> None:
    text = json.dumps({"auths": {key: auth("me"), "other.example": auth("other")}})
    found = Keyring({"DOCKER_AUTH_CONFIG": text, "HOME": "/nowhere"}).find(host, repository)
    assert found.credential == Credential("DOCKER_AUTH_CONFIG", "me", SECRET)
    assert found.tried == ("me of DOCKER_AUTH_CONFIG",)


def test_what_is_about_a_part_of_a_registry_comes_first() -> None:
    auths = {"a.example": auth("all"), "a.example/b": auth("b"), "a.example/b/c": auth("c")}
    keyring = Keyring({"DOCKER_AUTH_CONFIG": json.dumps({"auths": auths}), "HOME": "/nowhere"})
    names = [getattr(keyring.find("a.example", one).credential, "username", None) for one in ("b/c", "b/d", "bb", "")]
    assert names == ["c", "b", "all", "all"]
    assert keyring.find("b.example", "b/c").credential is None


@given(
    st.text(st.characters(exclude_characters=":\0", exclude_categories=["Cs"]), max_size=10),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
)
def test_a_password_may_have_colons(name: str, password: str) -> None:
    text = json.dumps({"auths": {"a.example": auth(name, password)}})
    credential = AuthFile("X", text).find("a.example", "").credential
    assert credential is not None
    assert (credential.username, credential.password) == (name, password)
    assert base64.b64decode(credential.basic.partition(" ")[2]).decode() == f"{name}:{password}"


def test_tokens_take_the_place_of_passwords() -> None:
    auths = {
        "a.example": {"identitytoken": "t"},
        "b.example": {"registrytoken": "r"},
        "c.example": {"username": "u", "password": "p"},
        "d.example": {},
    }
    file = AuthFile("X", json.dumps({"auths": auths}))
    assert file.find("a.example", "").credential == Credential("X", identity_token="t")
    assert file.find("b.example", "").credential == Credential("X", registry_token="r")
    assert file.find("c.example", "").credential == Credential("X", "u", "p")
    assert file.find("d.example", "").credential is None


def test_a_secret_is_shown_nowhere() -> None:
    text = json.dumps({"auths": {"a.example": {**auth("me"), "identitytoken": SECRET, "registrytoken": SECRET}}})
    found = AuthFile("X", text).find("a.example", "")
    encoded = auth("me")["auth"]
    for shown in (
        repr(found),
        str(found.credential),
        repr(AuthFile("X", text)),
        repr(Keyring({"DOCKER_AUTH_CONFIG": text})),
    ):
        assert SECRET not in shown
        assert encoded not in shown


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "it is no JSON"),
        ("[]", "it is no file of credentials"),
        ('{"auths": []}', "it is no file of credentials"),
        ('{"auths": {"a.example": {"auth": "s3cret!"}}}', "auth of a.example is no base64 of a name and a password"),
        ('{"auths": {"a.example": {"auth": "/////w=="}}}', "auth of a.example is no base64"),
    ],
)
def test_a_damaged_file_is_named_and_what_is_in_it_not(
    environ: dict[str, str], tmp_path: Path, content: str, why: str
) -> None:
    path = tmp_path / "home/.docker/config.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(RegistryError, match=f"credentials cannot be read from {path}: {why}") as caught:
        Keyring(environ).find("a.example")
    assert SECRET not in repr(pickle.loads(pickle.dumps(caught.value)).__dict__)
    assert "pytest-sandbox login" in caught.value.hint
    assert caught.value.__cause__ is None


def test_a_file_that_may_not_be_read_does_not_hide_the_others(environ: dict[str, str], tmp_path: Path) -> None:
    path = write(tmp_path / "home/.docker/config.json", auths={"a.example": auth("me")})
    os.chmod(path, 0)
    program = """
import json, os, sys
from pytest_sandbox_runtime.images.registry.credentials import Keyring
if os.geteuid() == 0:
    os.seteuid(65534)
print(*Keyring(json.loads(sys.argv[1])).find("a.example").tried)
"""
    argv = [sys.executable, "-c", program, json.dumps(environ)]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert f"{path}, which cannot be read" in said


HELPER = """#!/bin/sh
read server
echo "$1 $server" >> "$LOG"
[ "$1" = store ] && exit 0
case "$server" in
    known.example) echo '{"ServerURL": "x", "Username": "me", "Secret": "s3cret"}' ;;
    token.example) echo '{"ServerURL": "x", "Username": "<token>", "Secret": "s3cret"}' ;;
    https://index.docker.io/v1/) echo '{"Username": "hub", "Secret": "s3cret"}' ;;
    strange.example) echo 's3cret' ;;
    broken.example) echo 'no keychain' >&2; exit 1 ;;
    *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin/docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def test_helpers_are_asked(helper: Path) -> None:
    file = AuthFile(
        "X", json.dumps({"credsStore": "test", "auths": {"known.example": {}, "unknown.example": auth("file")}})
    )
    source = "docker-credential-test (X)"
    assert file.find("known.example", "").credential == Credential(source, "me", SECRET)
    assert file.find("token.example", "").credential == Credential(source, identity_token=SECRET)
    assert file.find("docker.io", "a/b").credential == Credential(source, "hub", SECRET)
    assert file.find("unknown.example", "").credential == Credential("X", "file", SECRET)
    assert helper.read_text().splitlines()[0] == "get known.example"


def test_a_helper_for_one_registry_comes_first(helper: Path) -> None:
    file = AuthFile("X", json.dumps({"credHelpers": {"known.example": "test"}, "credsStore": "absent"}))
    assert file.find("known.example", "").tried == ()
    assert file.find("other.example", "").tried == ("docker-credential-absent (X), which is not installed",)
    assert not helper.read_text().count("other.example")


def test_a_helper_that_fails_is_named_and_what_it_printed_not_where_that_may_be_a_secret(helper: Path) -> None:
    file = AuthFile("X", json.dumps({"credsStore": "test"}))
    assert file.find("broken.example", "").tried == ("docker-credential-test (X), which failed: no keychain",)
    assert file.find("strange.example", "").tried == ("docker-credential-test (X), which did not answer in JSON",)
    assert file.find("unknown.example", "").tried == ()


def test_a_login_is_written_for_its_user_alone(environ: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "home/.docker/config.json"
    old_umask = os.umask(0)
    try:
        assert remember(environ, "a.example", "me", "a:b") == str(path)
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert Keyring(environ).find("a.example").credential == Credential(str(path), "me", "a:b")
    assert os.listdir(path.parent) == ["config.json"]


def test_a_login_leaves_the_rest_as_it_was(environ: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "home/.docker/config.json"
    write(path, psFormat="x", auths={"b.example": auth("b"), "https://a.example/v2/": auth("old")})
    path.chmod(0o644)
    remember(environ, "a.example", "new", SECRET)
    assert json.loads(path.read_text()) == {
        "psFormat": "x",
        "auths": {"b.example": auth("b"), "a.example": auth("new")},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert forget(environ, "a.example") == str(path)
    assert json.loads(path.read_text()) == {"psFormat": "x", "auths": {"b.example": auth("b")}}
    assert forget(environ, "a.example") is None


def test_a_login_to_docker_hub_is_what_docker_reads(environ: dict[str, str], tmp_path: Path) -> None:
    remember(environ, "docker.io", "me", SECRET)
    assert list(json.loads((tmp_path / "home/.docker/config.json").read_text())["auths"]) == [
        "https://index.docker.io/v1/"
    ]
    assert Keyring(environ).find("docker.io", "a/b").credential is not None


def test_a_login_goes_through_a_link_and_to_the_named_file(environ: dict[str, str], tmp_path: Path) -> None:
    real = tmp_path / "dotfiles/config.json"
    write(real)
    link = tmp_path / "link.json"
    link.symlink_to(real)
    environ["REGISTRY_AUTH_FILE"] = str(link)
    remember(environ, "a.example", "me", SECRET)
    assert link.is_symlink()
    assert "a.example" in real.read_text()


def test_a_helper_keeps_what_is_logged_in(environ: dict[str, str], tmp_path: Path, helper: Path) -> None:
    path = tmp_path / "home/.docker/config.json"
    write(path, credsStore="test")
    assert remember(environ, "a.example", "me", SECRET) == "docker-credential-test"
    assert SECRET not in path.read_text()
    assert '"Username": "me"' in helper.read_text()
    assert forget(environ, "a.example") == "docker-credential-test"
    assert helper.read_text().splitlines()[-1] == "erase a.example"


def test_a_helper_that_takes_nothing_is_an_error(environ: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "home/.docker/config.json", credsStore="absent")
    with pytest.raises(
        RegistryError, match="docker-credential-absent could not store the credential: which is not installed"
    ):
        remember(environ, "a.example", "me", SECRET)
