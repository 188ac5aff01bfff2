"""The store: each archive unpacked once, by any number of processes, whatever kills them."""

from __future__ import annotations

import io
import os
import pickle
import pwd
import signal
import stat
import subprocess
import sys
import tarfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from pytest_sandbox_runtime.errors import ImageError, SandboxError
from pytest_sandbox_runtime.images.home import default_store
from pytest_sandbox_runtime.images.layer import apply_layer
from pytest_sandbox_runtime.images.store import Store
from pytest_sandbox_runtime.kernel.mounts import MountFlag, mount
from pytest_sandbox_runtime.kernel.namespaces import CloneFlag, unshare
from pytest_sandbox_runtime.specs import Image

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY = 65534
FILES = {"bin/sh": b"#!", "etc/motd": b"hello", "usr/lib/os-release": b"ID=tiny", "usr/share/big": b"x" * 300_000}


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for folder in sorted({str(above) for name in files for above in Path(name).parents[:-1] if ".." not in name}):
            header = tarfile.TarInfo(folder)
            header.type, header.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(header)
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o644
            tar.addfile(header, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "root.tar", FILES)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def files_of(root: str) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def layers_of(store: Store) -> list[str]:
    return sorted(os.listdir(Path(store.path) / "layers"))


def child_of(action: Callable[[], None]) -> int:
    """Run ``action`` in a process of its own, and return its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def end_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def settle(path: Path) -> None:
    # Times of files move on in jiffies, and no descriptor tells when.
    while time.time_ns() - path.stat().st_ctime_ns < 25_000_000:
        pass


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


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


def test_a_directory_is_its_own_root(tmp_path: Path, store: Store) -> None:
    (tmp_path / "root/usr").mkdir(parents=True)
    assert store.root_of(Image.archive(tmp_path / "root")) == str(tmp_path / "root")
    assert layers_of(store) == []


def test_a_tar_is_unpacked_into_the_layer_named_by_its_digest(archive: Path, store: Store) -> None:
    root = store.root_of(Image.archive(archive))
    digest = subprocess.run(["sha256sum", archive], capture_output=True, text=True, check=True).stdout.split()[0]
    assert root == os.path.join(store.path, "layers", digest)
    assert files_of(root) == FILES
    assert layers_of(store) == [digest]


def test_the_same_bytes_elsewhere_are_the_same_layer(archive: Path, tmp_path: Path, store: Store) -> None:
    root = store.root_of(Image.archive(archive))
    inode = os.stat(root).st_ino
    copy = tmp_path / "copy.tar"
    copy.write_bytes(archive.read_bytes())
    assert store.root_of(Image.archive(copy)) == root
    assert os.stat(root).st_ino == inode


def test_an_unchanged_archive_is_not_read_again(archive: Path, store: Store) -> None:
    settle(archive)
    root = store.root_of(Image.archive(archive))
    before = bytes_read()
    assert Store(store.path).root_of(Image.archive(archive)) == root
    assert bytes_read() - before < 10_000 < archive.stat().st_size


def test_an_archive_rewritten_with_its_size_and_time_is_seen(archive: Path, store: Store) -> None:
    settle(archive)
    first = store.root_of(Image.archive(archive))
    status = archive.stat()
    with archive.open("r+b") as file:
        file.write(write_archive(archive.parent / "other.tar", FILES | {"etc/motd": b"HELLO"}).read_bytes())
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (archive.stat().st_size, archive.stat().st_ino) == (status.st_size, status.st_ino)
    second = store.root_of(Image.archive(archive))
    assert files_of(second)["etc/motd"] == b"HELLO"
    assert files_of(first)["etc/motd"] == b"hello"


def test_an_archive_written_again_and_again_at_once_is_always_the_latest(tmp_path: Path, store: Store) -> None:
    for turn in range(30):
        path = write_archive(tmp_path / "root.tar", {"bin/turn": b"%03d" % turn})
        os.utime(path, (0, 0))
        assert files_of(store.root_of(Image.archive(path))) == {"bin/turn": b"%03d" % turn}


def test_the_digest_of_a_file_that_may_still_change_unseen_is_not_kept(archive: Path, store: Store) -> None:
    later = time.time() + 3600
    os.utime(archive, (later, later))
    store.root_of(Image.archive(archive))
    assert os.listdir(Path(store.path) / "builds") == []


def test_an_archive_that_grows_while_it_is_unpacked_is_an_error(archive: Path, store: Store) -> None:
    def grow(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.mkdir" and ".partial-" in str(arguments[0]):
            with archive.open("ab") as file:
                file.write(bytes(512))

    def check() -> None:
        sys.addaudithook(grow)
        assert "root.tar was changed while it was read" in refusal(store, archive).message

    assert end_of(child_of(check)) == 0


@pytest.mark.parametrize("content", ["", "{", "5", '[[1], "x"]', '[[1, 2], "ab"]]'])
def test_a_damaged_record_is_not_believed(content: str, archive: Path, store: Store) -> None:
    settle(archive)
    root = store.root_of(Image.archive(archive))
    (record,) = (Path(store.path) / "builds").iterdir()
    record.write_text(content)
    assert store.root_of(Image.archive(archive)) == root
    assert root[-64:] in record.read_text()


def test_many_processes_make_one_layer(archive: Path, store: Store) -> None:
    start, go = os.pipe()
    end, say = os.pipe()

    def make() -> None:
        os.close(go)
        os.read(start, 1)
        root = Store(store.path).root_of(Image.archive(archive))
        os.write(say, f"{root} {os.stat(root).st_ino} {files_of(root) == FILES}\n".encode())

    children = [child_of(make) for _ in range(8)]
    os.close(start)
    os.close(go)
    os.close(say)
    assert [end_of(child) for child in children] == [0] * 8
    with open(end) as told:
        lines = told.read().splitlines()
    assert len(lines) == 8
    assert len(set(lines)) == 1
    assert lines[0].endswith("True")
    assert len(layers_of(store)) == 1


def killed_at(step: int, action: Callable[[], object]) -> None:
    """Do ``action``, but die by SIGKILL at the ``step``th thing that Python does to files."""
    count = iter(range(step))

    def hook(event: str, _arguments: object) -> None:
        if (event == "open" or event.startswith(("os.", "shutil."))) and next(count, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    action()


def test_a_kill_at_any_moment_leaves_the_store_whole(tmp_path: Path) -> None:
    small = {name: FILES[name] for name in ("bin/sh", "etc/motd")}
    path = write_archive(tmp_path / "root.tar", small)
    for step in range(500):
        store = tmp_path / f"store{step}"
        image = Image.archive(path)
        child = child_of(lambda: killed_at(step, lambda: Store(str(store)).root_of(image)))  # noqa: B023
        status = end_of(child)
        assert all(files_of(str(layer)) == small for layer in (store / "layers").glob("[0-9a-f]*"))
        again = Store(str(store))
        assert files_of(again.root_of(image)) == small
        assert len(layers_of(again)) == 1
        if status == 0:
            break
    assert status == 0
    assert step > 20  # in this process; that of an ordinary user has another do a part


def test_what_a_dead_maker_left_goes_with_the_next_layer_of_any_archive(archive: Path, store: Store) -> None:
    left = Path(store.path) / "layers/.partial-0123"
    (left / "closed/inner").mkdir(parents=True)
    (left / "closed/inner/file").touch()
    (left / "closed/link").symlink_to("/")
    (left / "closed").chmod(0o500)
    store.root_of(Image.archive(archive))
    assert not left.exists()


def test_what_a_living_maker_has_begun_stays(archive: Path, store: Store) -> None:
    begun = Path(store.path) / "layers/.partial-0123"
    begun.mkdir()
    with FileLock(Path(store.path) / "locks/layer-0123.lock"):
        store.root_of(Image.archive(archive))
        assert begun.exists()


def refusal(store: Store, path: Path) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        store.root_of(Image.archive(path))
    assert layers_of(store) == []
    assert caught.value.hint
    return caught.value


def test_a_missing_archive_is_an_error_with_its_path(tmp_path: Path, store: Store) -> None:
    error = refusal(store, tmp_path / "none.tar")
    assert isinstance(error, ImageError)
    assert error.message == f"cannot read the archive {tmp_path}/none.tar: No such file or directory"


def test_a_fifo_is_no_archive_and_nobody_waits_for_it(tmp_path: Path, store: Store) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is neither a file nor a directory" in refusal(store, tmp_path / "pipe").message


def test_the_host_is_no_archive(store: Store) -> None:
    with pytest.raises(ImageError, match="the host is no archive"):
        store.root_of(Image.host())


def test_a_truncated_archive_leaves_nothing_behind(archive: Path, store: Store) -> None:
    with archive.open("r+b") as file:
        file.truncate(100_000)
    error = refusal(store, archive)
    assert error.message.startswith(f"{archive} is truncated or corrupt: ")


def test_a_hostile_archive_leaves_nothing_behind(tmp_path: Path, store: Store) -> None:
    error = refusal(store, write_archive(tmp_path / "bad.tar", {"bin/sh": b"#!", "../../escaped": b"x"}))
    assert error.message == (f"{tmp_path}/bad.tar: cannot write member '../../escaped': '../../escaped' has .. in it")
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"readme.txt": b"x", "src/x.py": b"y"}, "pack the root directory itself"),
        ({"root/usr/bin/sh": b"#!", "root/etc/motd": b""}, "is in its root, pack that directory's content"),
        ({"manifest.json": b"[]", "1234/layer.tar": b""}, "pytest-sandbox load"),
        ({"oci-layout": b"{}", "index.json": b"{}"}, "pytest-sandbox load"),
        ({}, "pack the root directory itself"),
    ],
)
def test_an_archive_of_something_else_is_told_so(
    files: dict[str, bytes], words: str, tmp_path: Path, store: Store
) -> None:
    error = refusal(store, write_archive(tmp_path / "other.tar", files))
    assert f"{tmp_path}/other.tar holds no root file system: there is no bin, sbin, usr, but" in error.message
    assert words in error.hint


def test_a_directory_of_something_else_is_told_so(tmp_path: Path, store: Store) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/setup.py").touch()
    error = refusal(store, tmp_path / "project")
    assert "project holds no root file system: there is no bin, sbin, usr, but setup.py" in error.message


@pytest.mark.needs("root")
def test_a_full_disk_is_an_error_with_its_mend_and_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    def check() -> None:
        unshare(CloneFlag.NEWNS)
        mount("none", "/", flags=MountFlag.REC | MountFlag.PRIVATE)
        small = tmp_path / "small"
        small.mkdir()
        mount("tmpfs", str(small), "tmpfs", options="size=128k")
        store = Store(str(small / "store"))
        error = refusal(store, archive)
        assert "root.tar: cannot write member 'usr/share/big': No space left on device" in error.message
        assert error.hint.startswith("free some space")

    assert end_of(child_of(check)) == 0


def test_filelock_is_imported_only_for_a_new_layer(archive: Path, store: Store) -> None:
    store.root_of(Image.archive(archive))
    code = f"""
import sys
from pytest_sandbox_runtime.images.store import Store
from pytest_sandbox_runtime.specs import Image
Store({store.path!r}).root_of(Image.archive({str(archive)!r}))
print([name for name in ("filelock", "tarfile") if name in sys.modules])
"""
    environ = {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_the_layer_is_what_its_tar_says(archive: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "direct").mkdir()
    apply_layer(archive, str(tmp_path / "direct"))
    assert files_of(store.root_of(Image.archive(archive))) == files_of(str(tmp_path / "direct"))
