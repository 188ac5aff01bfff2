"""What cannot be: each a clear error of the engine's own, at the earliest moment, with nothing left behind."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime import (
    CommandError,
    Engine,
    EngineError,
    EngineSettings,
    Image,
    ImageError,
    Mount,
    SandboxClosedError,
    SandboxError,
    SandboxSpec,
    SpecError,
    StartError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A process that makes itself one of another kind of host, and then says how far it gets.
SHA256 = 64
ATTEMPT = """
import os, pickle, sys
try:
    from pytest_sandbox_runtime import Engine, EngineSettings, SandboxSpec
    with Engine.open(EngineSettings(store=sys.argv[1])) as engine:
        engine.create(SandboxSpec())
except Exception as error:
    os.write(1, pickle.dumps(error))
"""
# Where the kernel's owner allows no user namespace, and without CAP_SYS_ADMIN, which would need none.
NO_USER_NAMESPACES = """
from pytest_sandbox_runtime.kernel.capabilities import Capability, capget, capset, drop_bounding
from pytest_sandbox_runtime.supervisor.identities import map_identities
map_identities("")
open("/proc/sys/user/max_user_namespaces", "w").write("0")
drop_bounding([Capability.SYS_ADMIN])
kept = capget().permitted & ~(1 << Capability.SYS_ADMIN)
capset(kept, kept, 0)
"""
NO_LINUX = """
import sys
sys.platform = "darwin"
sys.modules["fcntl"] = sys.modules["pwd"] = None
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def engine(store: Path) -> Iterator[Engine]:
    """An engine that has nothing of any sandbox when it is closed, and no run after it."""
    with Engine.open(EngineSettings(store=str(store))) as engine:
        yield engine
        (run,) = (store / "runs").iterdir()
        assert list((run / "sandboxes").iterdir()) == []
    assert list((store / "runs").iterdir()) == []
    # What was unpacked, whole, is there for the next who asks.
    assert all(len(place.name) == SHA256 for place in (store / "layers").iterdir())


def tar_of(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 4096
            archive.addfile(member, io.BytesIO(bytes(4096)))
    return path


def of_words(tmp_path: Path) -> Path:
    path = tmp_path / "words.tar"
    path.write_text("these are only words\n" * 100)
    return path


def cut_short(tmp_path: Path) -> Path:
    path = tar_of(tmp_path / "cut.tar", "bin/sh", "etc/passwd")
    os.truncate(path, 6000)
    return path


def of_something_else(tmp_path: Path) -> Path:
    return tar_of(tmp_path / "else.tar", "README", "src/main.c")


def empty_directory(tmp_path: Path) -> Path:
    path = tmp_path / "empty"
    path.mkdir()
    return path


@pytest.mark.needs("overlay-on-host")
@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (lambda path: path / "missing.tar", "cannot read the archive .*/missing.tar: No such file", "check the path"),
        (of_words, r"words\.tar.* is no ", "make it again"),
        (cut_short, r"cut\.tar.* truncated", ""),
        (lambda path: tar_of(path / "out.tar", "bin/sh", "../../etc/passwd"), r"out\.tar.*\.\./\.\./etc/passwd", ""),
        (of_something_else, r"else\.tar ", ""),
        (empty_directory, r"/empty ", ""),
    ],
    ids=["missing", "words", "truncated", "leads out", "no root", "empty"],
)
def test_an_image_that_is_none_is_an_error_that_names_it(
    engine: Engine, tmp_path: Path, make: Callable[[Path], Path], message: str, hint: str
) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        engine.create(SandboxSpec(image=Image.archive(make(tmp_path))))
    assert caught.value.hint
    assert hint in caught.value.hint
    assert not (tmp_path.parent / "etc").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"memory": -1}, "'?-1'? is no size|memory=-1"),
        ({"memory": "1"}, "memory=1 is less than the 4194304 bytes that init itself needs"),
        ({"memory": "much"}, "'much' is no size"),
        ({"cpus": -0.5}, "cpus=-0.5 is not more than 0"),
        ({"pids": -1}, "pids=-1 is not more than 0"),
        ({"timeout": -1}, "timeout=-1 is not more than 0"),
        ({"image": "debian"}, "image='debian' is no Image"),
        ({"network": "bridge"}, "network='bridge' is none of none, host"),
        ({"hostname": "-"}, "hostname='-' is no host name"),
        ({"workdir": "tmp"}, "workdir='tmp' is not absolute"),
        ({"env": {"": "x"}}, "env has '': 'x', which no environment can hold"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_spec_that_cannot_be_right_is_an_error_where_it_is_made(words: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        SandboxSpec(**words)
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.needs("overlay-on-host")
@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        ({"user": "nobody-at-all"}, SpecError, "user 'nobody-at-all' does not exist in the sandbox"),
        ({"workdir": "/no/such/place"}, SpecError, "workdir /no/such/place is no directory in the host"),
        ({"workdir": "/etc/passwd"}, SpecError, "workdir /etc/passwd is no directory in the host"),
        (
            {"mounts": [Mount(source="/no/such", target="/mnt")]},
            StartError,
            r"could not hold /no/such .*No such file or directory",
        ),
    ],
    ids=["user", "workdir", "file as workdir", "mount"],
)
def test_what_is_not_in_the_image_is_an_error_at_the_start(
    engine: Engine, words: dict[str, Any], kind: type[SandboxError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        engine.create(SandboxSpec(**words))


@pytest.mark.needs("overlay-on-host")
def test_what_is_not_in_the_sandbox_is_an_error_at_the_command(engine: Engine) -> None:
    with engine.create(SandboxSpec()) as sandbox:
        with pytest.raises(SpecError, match="user 'nobody-at-all' does not exist in the sandbox"):
            sandbox.run(["true"], user="nobody-at-all")
        with pytest.raises(CommandError, match="in /etc/passwd: Not a directory"):
            sandbox.run(["true"], workdir="/etc/passwd")


@pytest.mark.needs("overlay-on-host")
@pytest.mark.parametrize("use", ["run", "popen", "pty", "read_text", "changes", "stats", "keep"])
def test_a_sandbox_is_not_used_after_its_end(engine: Engine, use: str) -> None:
    sandbox = engine.create(SandboxSpec())
    sandbox.close()
    with pytest.raises(SandboxClosedError, match="sandbox .* was closed") as caught:
        getattr(sandbox, use)(*(["/bin/true"] if use in ("run", "popen", "pty", "read_text") else []))
    assert caught.value.hint == "use it within its with block, or its test"


@pytest.mark.needs("overlay-on-host")
def test_an_engine_is_not_used_after_its_end(store: Path) -> None:
    engine = Engine.open(EngineSettings(store=str(store)))
    engine.close()
    with pytest.raises(SandboxClosedError, match="the engine was closed"):
        engine.create(SandboxSpec())


def attempt(setup: str, store: Path) -> Any:
    """Return the error that a process has met that ``setup`` has made one of another kind of host."""
    ended = subprocess.run([sys.executable, "-c", setup + ATTEMPT, str(store)], check=True, capture_output=True)
    assert ended.stderr == b""
    return pickle.loads(ended.stdout)


def test_another_system_is_told_what_is_needed(store: Path) -> None:
    error = attempt(NO_LINUX, store)
    assert str(error) == (
        "sandboxes need Linux, and this is darwin\n  hint: run the suite in a Linux virtual machine, or in WSL2"
    )
    assert not store.exists()


@pytest.mark.needs("user-namespaces")
@pytest.mark.parametrize("_turn", range(5))
def test_a_kernel_without_user_namespaces_is_told_what_to_set(store: Path, _turn: int) -> None:
    error = attempt(NO_USER_NAMESPACES, store)
    assert isinstance(error, EngineError)
    assert error.message.startswith("cannot make a sandbox: could not start the supervisor: No space left on device")
    assert error.hint == "user.max_user_namespaces is 0: sudo sysctl -w user.max_user_namespaces=15000"
    assert list((store / "runs").iterdir()) == []
    assert list((store / "locks").iterdir()) == []
