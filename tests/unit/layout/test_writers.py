"""Writers that are many, wait for each other, or die: the layout stays whole."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.layout import Layout
from pytest_sandbox_runtime.images.leases import Leases
from tests.unit.children import child_of, end_of
from tests.unit.layout.images import add_image, again, name, names, remains

if TYPE_CHECKING:
    from pytest_sandbox_runtime.images.leases import Lease


def test_many_processes_give_names_at_once(layout: Layout, lease: Lease) -> None:
    def work(number: int) -> None:
        mine = again(layout)
        with mine._leases.take() as own:
            for turn in range(5):
                image = add_image(mine, own, b"%d %d" % (number, turn))
                mine.tag(name(f"n{number}:{turn}"), image, own)

    children = [child_of(lambda number=number: work(number)) for number in range(4)]  # type: ignore[misc]
    assert [end_of(child) for child in children] == [0] * 4
    assert sorted(map(str, names(layout))) == [
        f"docker.io/library/n{number}:{turn}" for number in range(4) for turn in range(5)
    ]
    assert remains(layout) == []


def test_what_a_dead_writer_left_goes_and_what_a_living_one_writes_stays(layout: Layout, leases: Leases) -> None:
    ready, told = os.pipe()

    def die() -> None:
        blob = layout.begin(leases.take())
        blob.write(b"hello")
        os.write(told, b"x")
        os.kill(os.getpid(), signal.SIGKILL)

    assert end_of(child_of(die)) == -signal.SIGKILL
    assert os.read(ready, 1) == b"x"
    (left,) = remains(layout)
    with again(layout).begin(leases.take()) as blob:
        (mine,) = remains(layout)
        assert mine != left
        again(layout).add(io.BytesIO(b"x"), leases.take())
        assert remains(layout) == [mine]
        blob.write(b"hello")
        assert blob.commit() == (digest_of(b"hello"), 5)
    assert remains(layout) == []


def test_a_blob_is_written_on_from_where_it_was_cut(layout: Layout, leases: Leases) -> None:
    digest, lease = digest_of(b"hello"), leases.take()
    with layout.resume(digest, lease) as blob:
        blob.write(b"he")
    (left,) = remains(layout)
    assert left == f".cut-{digest.partition(':')[2]}"
    with again(layout).begin(leases.take()):
        assert left in remains(layout)
    with again(layout).resume(digest, lease) as blob:
        assert blob.size == 2
        blob.write(b"llo")
        assert blob.commit(digest, 5) == (digest, 5)
    assert remains(layout) == []
    assert Path(layout.blob_path(digest)).read_bytes() == b"hello"


def test_what_was_cut_can_be_forgotten(layout: Layout, lease: Lease) -> None:
    digest = digest_of(b"hello")
    with layout.resume(digest, lease) as blob:
        blob.write(b"wrong")
        blob.restart()
        blob.write(b"hello")
        assert blob.commit(digest) == (digest, 5)
    with layout.resume(digest, lease) as blob:
        blob.write(b"wrong")
        blob.restart()
    assert remains(layout) == []
    with layout.resume(digest, lease) as blob:
        blob.write(b"wrong")
    layout.sweep()
    assert remains(layout) == []


def test_who_writes_the_same_blob_is_waited_for(layout: Layout, lease: Lease) -> None:
    digest = digest_of(b"hello")
    begun, told = os.pipe()

    def wait() -> None:
        mine = again(layout)
        own = mine._leases.take()
        os.write(told, b"x")
        with mine.resume(digest, own) as blob:
            assert blob.size == 0
            assert mine.has(digest, 5, own)

    with layout.resume(digest, lease) as blob:
        blob.write(b"hello")
        child = child_of(wait)
        assert os.read(begun, 1) == b"x"
        blob.commit(digest)
    assert end_of(child) == 0
    assert remains(layout) == []


def test_a_kill_at_any_moment_leaves_the_layout_whole(tmp_path: Path) -> None:
    def work(path: Path, step: int) -> None:
        count = iter(range(step))

        def hook(event: str, _arguments: object) -> None:
            if (event in ("open", "fcntl.flock") or event.startswith("os.")) and next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        leases = Leases(str(path / "leases"))
        layout = Layout(str(path / "images"), str(path / "index.lock"), leases)
        with leases.take() as lease:
            layout.tag(name("a"), add_image(layout, lease), lease)

    for step in range(300):
        path = tmp_path / str(step)
        (path / "leases").mkdir(parents=True)
        status = end_of(child_of(lambda: work(path, step)))  # noqa: B023
        leases = Leases(str(path / "leases"))
        layout = Layout(str(path / "images"), str(path / "index.lock"), leases)
        for digest in layout.digests():
            assert digest_of(Path(layout.blob_path(digest)).read_bytes()) == digest
        for image in layout.index().manifests:
            assert all(layout.size(digest) is not None for digest in layout.reach(image.digest))
        with leases.take() as lease:
            layout.tag(name("a"), add_image(layout, lease), lease)
        assert remains(layout) == []
        if status == 0:
            break
    assert status == 0
    assert step > 30
