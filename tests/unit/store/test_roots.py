"""Each archive is unpacked once, by any number of processes, whatever kills them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from pytest_sandbox_runtime.images.layer import apply_layer
from pytest_sandbox_runtime.images.store import Store
from pytest_sandbox_runtime.specs import Image
from tests.unit.children import child_of, end_of
from tests.unit.store.archives import FILES, layers_of, write_archive
from tests.unit.trees import files_below

if TYPE_CHECKING:
    from collections.abc import Callable


def settle(path: Path) -> None:
    # Times of files move on in jiffies, and no descriptor tells when.
    while time.time_ns() - path.stat().st_ctime_ns < 25_000_000:
        pass


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_directory_is_its_own_root(tmp_path: Path, store: Store) -> None:
    (tmp_path / "root/usr").mkdir(parents=True)
    assert store.root_of(Image.archive(tmp_path / "root")) == str(tmp_path / "root")
    assert layers_of(store) == []


def test_a_tar_is_unpacked_into_the_layer_named_by_its_digest(archive: Path, store: Store) -> None:
    root = store.root_of(Image.archive(archive))
    digest = subprocess.run(["sha256sum", archive], capture_output=True, text=True, check=True).stdout.split()[0]
    assert root == os.path.join(store.path, "layers", digest)
    assert files_below(root) == FILES
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
    assert files_below(second)["etc/motd"] == b"HELLO"
    assert files_below(first)["etc/motd"] == b"hello"


def test_an_archive_written_again_and_again_at_once_is_always_the_latest(tmp_path: Path, store: Store) -> None:
    for turn in range(30):
        path = write_archive(tmp_path / "root.tar", {"bin/turn": b"%03d" % turn})
        os.utime(path, (0, 0))
        assert files_below(store.root_of(Image.archive(path))) == {"bin/turn": b"%03d" % turn}


def test_the_digest_of_a_file_that_may_still_change_unseen_is_not_kept(archive: Path, store: Store) -> None:
    later = time.time() + 3600
    os.utime(archive, (later, later))
    store.root_of(Image.archive(archive))
    assert os.listdir(Path(store.path) / "builds") == []


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
        os.write(say, f"{root} {os.stat(root).st_ino} {files_below(root) == FILES}\n".encode())

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
        assert all(files_below(str(layer)) == small for layer in (store / "layers").glob("[0-9a-f]*"))
        again = Store(str(store))
        assert files_below(again.root_of(image)) == small
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
    assert files_below(store.root_of(Image.archive(archive))) == files_below(str(tmp_path / "direct"))
