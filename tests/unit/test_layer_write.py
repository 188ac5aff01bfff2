"""Layers' tars, from upper directories made by hand: what is in them, and that they are always the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.layer import Identities, apply_layer, write_layer
from pytest_sandbox_runtime.images.layer.header import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    SYMLINK,
    Entry,
    encode,
)
from pytest_sandbox_runtime.specs import SOURCE_DATE_EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OLD = 1_000_000
NO_MAP = Identities()
CAPABILITY = b"\1\0\0\2\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
OVERRIDE = "user.containers.override_stat"
# Not to be changed: images that were built before are to be found again.
KNOWN = "sha256:aa993dfbc270a5473023542a4c71a9e3c46bd81b1ed7e834bfdd605055af75fe"
OTHER_PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.1[0-9].*/bin/python"))


@pytest.fixture
def upper(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "upper"
    before = os.umask(0o022)
    path.mkdir()
    yield path
    os.umask(before)


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    path = tmp_path / "lower"
    path.mkdir()
    return path


def layer_of(
    upper: Path,
    lowers: Sequence[Path] | None = None,
    *,
    identities: Identities = NO_MAP,
    user_namespace: bool = True,
) -> bytes:
    stream = io.BytesIO()
    names = None if lowers is None else [str(path) for path in lowers]
    digest = write_layer(str(upper), stream, lowers=names, user_namespace=user_namespace, identities=own(identities))
    layer = stream.getvalue()
    assert digest.diff_id == f"sha256:{hashlib.sha256(layer).hexdigest()}"
    assert digest.size == len(layer)
    return layer


def own(identities: Identities) -> Identities:
    """Whoever runs the tests is root inside."""
    if identities != Identities() or os.geteuid() == 0:
        return identities
    return Identities(((0, os.geteuid(), 1),), ((0, os.getegid(), 1),))


def members(layer: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(layer), encoding="utf-8", errors="surrogateescape") as tar:
        return {member.name: member for member in tar}


def make_old(root: Path) -> None:
    for folder, names, files in os.walk(root, topdown=False):
        for name in [*names, *files]:
            os.utime(os.path.join(folder, name), (OLD, OLD), follow_symlinks=False)


def small_tree(root: Path) -> None:
    (root / "etc").mkdir(mode=0o755)
    (root / "etc/hosts").write_text("here")
    (root / "etc/link").symlink_to("hosts")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(b"#!" * 700)
    os.link(root / "usr/bin/tool", root / "usr/bin/again")
    os.mkfifo(root / "usr/pipe")


# What is in a layer


def test_members_are_sorted_and_parents_come_first(upper: Path) -> None:
    small_tree(upper)
    names = ["etc", "etc/hosts", "etc/link", "usr", "usr/bin", "usr/bin/again", "usr/bin/tool", "usr/pipe"]
    assert list(members(layer_of(upper, ()))) == names


def test_whiteouts_come_before_what_is_there(upper: Path) -> None:
    for name in ("zz", "mm"):
        os.mknod(upper / name, stat.S_IFCHR, 0)
    (upper / "aa").touch()
    found = members(layer_of(upper))
    assert [name for name in found if name != "."] == [".wh.mm", ".wh.zz", "aa"]
    assert all(found[name].isreg() and found[name].size == 0 for name in (".wh.mm", ".wh.zz"))


def test_over_unknown_layers_an_opaque_directory_has_its_marker(upper: Path) -> None:
    (upper / "d").mkdir()
    (upper / "d/file").touch()
    os.setxattr(upper / "d", "user.overlay.opaque", b"y")
    assert list(members(layer_of(upper)))[-3:] == ["d", "d/.wh..wh..opq", "d/file"]
    assert "d/.wh..wh..opq" not in members(layer_of(upper, user_namespace=False))


def test_over_nothing_there_is_nothing_to_hide(upper: Path) -> None:
    os.mknod(upper / "gone", stat.S_IFCHR, 0)
    (upper / "d").mkdir()
    os.setxattr(upper / "d", "user.overlay.opaque", b"y")
    assert list(members(layer_of(upper, ()))) == ["d"]


def test_whiteouts_of_the_other_form_are_known(upper: Path, lower: Path) -> None:
    for root in (upper, lower):
        (root / "d").mkdir()
        for name in ("gone", "empty"):
            (root / "d" / name).write_text("" if root == upper else "old")
    os.setxattr(upper / "d", "user.overlay.opaque", b"x")
    os.setxattr(upper / "d/gone", "user.overlay.whiteout", b"")
    assert list(members(layer_of(upper, [lower]))) == ["d", "d/.wh.gone", "d/empty"]


def test_a_copy_that_is_as_before_is_left_out(upper: Path, lower: Path) -> None:
    small_tree(lower)
    (lower / "etc/other").write_text("other")
    make_old(lower)
    shutil.copytree(lower / "etc", upper / "etc", symlinks=True)
    assert layer_of(upper, [lower]) == bytes(1024)
    os.setxattr(upper / "etc/hosts", "user.note", b"new")
    os.utime(upper / "etc/hosts", (OLD, OLD))
    (upper / "etc/other").write_text("OTHER")
    os.utime(upper / "etc/other", (OLD, OLD))
    assert list(members(layer_of(upper, [lower]))) == ["etc", "etc/hosts", "etc/other"]


def test_a_directory_that_something_was_made_in_keeps_its_mtime(upper: Path, lower: Path) -> None:
    for root in (lower, upper):
        (root / "etc").mkdir()
    make_old(lower)
    assert layer_of(upper, [lower]) == bytes(1024)
    (upper / "etc/new").touch()
    found = members(layer_of(upper, [lower]))
    assert (found["etc"].mtime, found["etc/new"].mtime) == (OLD, SOURCE_DATE_EPOCH)
    os.utime(upper / "etc", (5, 5))
    assert members(layer_of(upper, [lower]))["etc"].mtime == 5


def test_the_first_name_of_a_file_has_its_data(upper: Path) -> None:
    small_tree(upper)
    found = members(layer_of(upper, ()))
    assert found["usr/bin/again"].size == 1400
    assert (found["usr/bin/tool"].type, found["usr/bin/tool"].linkname) == (tarfile.LNKTYPE, "usr/bin/again")


def test_numbers_names_and_attributes_are_kept(upper: Path) -> None:
    names = ["n" * 100, "m" * 101, "\u00e9" * 60, os.fsdecode(b"\xe9" * 110), os.fsdecode(b"\xe9")]
    for name in names:
        (upper / name).touch()
    (upper / "link").symlink_to("\u00e9/" * 70)
    os.setxattr(upper / names[0], "user.note", b"a\0b\n=c\xff")
    os.setxattr(upper / names[0], "user.overlay.origin", b"mine")
    found = members(layer_of(upper, ()))
    assert set(found) == {*names, "link"}
    assert found["link"].linkname == "\u00e9/" * 70
    assert {key: value for key, value in found[names[0]].pax_headers.items() if "xattr" in key} == {
        "SCHILY.xattr.user.note": "a\0b\n=c\udcff"
    }
    assert (found[names[0]].uname, found[names[0]].gname) == ("", "")


def test_a_socket_is_left_out(upper: Path) -> None:
    os.mknod(upper / "socket", stat.S_IFSOCK | 0o600)
    assert layer_of(upper, ()) == bytes(1024)


def test_a_name_that_would_be_a_whiteout_is_refused(upper: Path) -> None:
    (upper / "etc").mkdir()
    (upper / "etc/.wh.file").touch()
    with pytest.raises(ImageError, match=r"cannot write 'etc/\.wh\.file' of .* has another meaning") as caught:
        layer_of(upper, ())
    assert "remove or rename it" in caught.value.hint


def test_an_attribute_with_an_impossible_name_is_refused(upper: Path) -> None:
    (upper / "file").touch()
    os.setxattr(upper / "file", "user.a=b", b"")
    with pytest.raises(ImageError, match="a name that no tar can say"):
        layer_of(upper, ())


def test_what_the_stream_does_not_take_is_its_own_error(upper: Path) -> None:
    (upper / "file").write_bytes(bytes(1 << 20))
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        write_layer(str(upper), full, identities=own(Identities()))


# Owners


@pytest.mark.needs("root")
def test_owners_are_those_inside(upper: Path) -> None:
    for name, uid, gid in (("root", 1000, 1000), ("user", 100032, 200007)):
        (upper / name).touch()
        os.chown(upper / name, uid, gid)
    os.chown(upper, 1000, 1000)
    identities = Identities(((0, 1000, 1), (1, 100000, 65536)), ((0, 1000, 1), (1, 200000, 65536)))
    found = members(layer_of(upper, (), identities=identities))
    assert [(name, found[name].uid, found[name].gid) for name in found] == [("root", 0, 0), ("user", 33, 8)]
    os.chown(upper / "user", 7, 7)
    with pytest.raises(ImageError, match="its user 7 is none of those that are mapped"):
        layer_of(upper, (), identities=identities)


@pytest.mark.needs("root")
def test_capabilities_set_in_a_user_namespace_are_the_plain_ones(upper: Path) -> None:
    inside = b"\1\0\0\3" + CAPABILITY[4:] + (1000).to_bytes(4, "little")
    (upper / "ping").touch()
    os.setxattr(upper / "ping", "security.capability", CAPABILITY)
    expected = layer_of(upper, ())
    os.setxattr(upper / "ping", "security.capability", inside)
    identities = Identities(((0, 1000, 1), (1, 0, 1)), ((0, 0, 1),))
    found = members(layer_of(upper, (), identities=identities))["ping"].pax_headers
    assert found == members(expected)["ping"].pax_headers


@pytest.mark.needs("root")
def test_devices_and_large_numbers(upper: Path) -> None:
    os.mknod(upper / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(upper / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    (upper / "file").touch()
    os.chown(upper / "file", 3_000_000_000, 2_097_152)
    found = members(layer_of(upper, ()))
    assert (found["null"].type, found["null"].devmajor, found["null"].devminor) == (tarfile.CHRTYPE, 1, 3)
    assert (found["disk"].type, found["disk"].devmajor, found["disk"].devminor) == (tarfile.BLKTYPE, 259, 70000)
    assert (found["file"].uid, found["file"].gid) == (3_000_000_000, 2_097_152)


def test_what_an_owner_could_not_be_is_read_back(upper: Path) -> None:
    (upper / "file").write_text("x")
    (upper / "null").touch()
    (upper / "d").mkdir()
    (upper / "d/link").symlink_to("x")
    os.setxattr(upper / "file", OVERRIDE, b"33:34:0644:file")
    os.setxattr(upper / "null", OVERRIDE, b"0:5:0620:char-1-3")
    os.setxattr(upper / "d", "user.pytest-sandbox.owners", b"7:8 link\0")
    found = members(layer_of(upper, ()))
    assert (found["file"].uid, found["file"].gid, found["file"].pax_headers) == (33, 34, {})
    assert (found["null"].type, found["null"].mode, found["null"].gid) == (tarfile.CHRTYPE, 0o620, 5)
    assert (found["d/link"].uid, found["d/link"].gid) == (7, 8)


@pytest.mark.parametrize("said", [b"", b"x", b"1:2", b"1:2:9", b"99999999999:0:0", b"0:0:0644:char-1"])
def test_an_override_that_makes_no_sense_is_none(said: bytes, upper: Path) -> None:
    (upper / "file").touch()
    before = members(layer_of(upper, ()))["file"].get_info()
    os.setxattr(upper / "file", OVERRIDE, said)
    assert members(layer_of(upper, ()))["file"].get_info() == before


# The same bytes


def test_neither_the_order_of_making_nor_the_time_nor_the_place_counts(tmp_path: Path) -> None:
    layers = []
    for number in range(2):
        root = tmp_path / f"place-{number}" / ("deeper" * number) / "root"
        root.mkdir(parents=True)
        for name in sorted("abcdefgh", reverse=bool(number)):
            (root / name).write_text(name)
            os.utime(root / name, (2e9 + number, 2e9 + number))
        layers.append(layer_of(root, ()))
    assert layers[0] == layers[1]


PROGRAM = """
import io, sys
sys.path[:0] = {path!r}
from pytest_sandbox_runtime.images.layer import Identities, write_layer
print(write_layer({upper!r}, io.BytesIO(), lowers=(), identities=Identities(*{identities!r})).diff_id)
"""


@pytest.mark.parametrize("python", [sys.executable, *OTHER_PYTHONS])
def test_each_python_writes_the_same_bytes(python: str, upper: Path) -> None:
    small_tree(upper)
    (upper / ("long" * 40)).write_text("x")
    (upper / os.fsdecode(b"\xe9")).touch()
    os.setxattr(upper / "etc/hosts", "user.note", b"\xff")
    make_old(upper)
    runtime = str(Path(write_layer.__code__.co_filename).parents[3])
    identities = tuple(own(Identities()))
    code = PROGRAM.format(path=[runtime], upper=str(upper), identities=identities)
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == KNOWN
    assert f"sha256:{hashlib.sha256(layer_of(upper, ())).hexdigest()}" == KNOWN


# Other readers

ENTRIES = st.builds(
    Entry,
    name=st.binary(min_size=1, max_size=130).map(lambda name: b"n" + name.replace(b"\0", b"x").replace(b"/", b"y")),
    kind=st.sampled_from([FILE, DIRECTORY, SYMLINK, HARD_LINK, FIFO, CHARACTER, BLOCK_DEVICE]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime=st.integers(-(2**33), 2**36),
    link=st.binary(min_size=1, max_size=130).map(lambda name: name.replace(b"\0", b"x")),
    device=st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)),
    attributes=st.lists(st.tuples(st.sampled_from(["user.a", "user.b"]), st.binary(max_size=9)), max_size=2).map(
        lambda pairs: tuple(sorted(dict(pairs).items()))
    ),
)


@given(ENTRIES, st.integers(0, 2**35))
@settings(deadline=None)
def test_tarfile_reads_what_was_meant(entry: Entry, size: int) -> None:
    links = entry.kind in (SYMLINK, HARD_LINK)
    entry = entry._replace(size=size if entry.kind == FILE else 0, link=entry.link if links else b"")
    blocks = encode(entry)
    assert len(blocks) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(blocks), encoding="utf-8", errors="surrogateescape") as tar:
        found = tar.next()
    assert found is not None
    assert found.name.encode("utf-8", "surrogateescape") == entry.name
    assert found.linkname.encode("utf-8", "surrogateescape") == entry.link
    assert (found.type, found.mode, found.uid, found.gid) == (entry.kind, entry.mode, entry.uid, entry.gid)
    assert (found.size, found.mtime) == (entry.size, entry.mtime)
    assert (found.devmajor, found.devminor) == entry.device
    texts = {f"SCHILY.xattr.{key}": value for key, value in entry.attributes}
    kept = {key: value.encode("utf-8", "surrogateescape") for key, value in found.pax_headers.items() if "SCH" in key}
    assert kept == texts


def test_a_name_that_is_not_utf_8_is_said_to_be_bytes() -> None:
    assert b"hdrcharset" not in encode(Entry("\u00e9".encode() * 90))
    assert b"21 hdrcharset=BINARY\n" in encode(Entry(b"\xe9" * 110))
    assert b"hdrcharset" not in encode(Entry(b"\xe9" * 100))


def test_gnu_tar_reads_it(upper: Path, tmp_path: Path) -> None:
    small_tree(upper)
    (upper / ("d" * 90)).mkdir()
    (upper / ("d" * 90) / ("long" * 20)).write_text("long")
    (upper / os.fsdecode(b"caf\xe9")).touch()
    (tmp_path / "layer.tar").write_bytes(layer_of(upper, ()))
    (tmp_path / "out").mkdir()
    said = subprocess.run(["tar", "-xpf", "layer.tar", "-C", "out"], cwd=tmp_path, capture_output=True, check=True)
    assert said.stderr == b""
    assert layer_of(tmp_path / "out", ()) == layer_of(upper, ())


@pytest.mark.needs("umoci")
def test_umoci_unpacks_it(upper: Path, tmp_path: Path) -> None:
    small_tree(upper)
    (tmp_path / "layer.tar").write_bytes(layer_of(upper, ()))
    os.mknod(upper / "etc/gone", stat.S_IFCHR, 0)

    def umoci(*args: str) -> None:
        subprocess.run(["umoci", *args], cwd=tmp_path, check=True, capture_output=True)

    umoci("init", "--layout", "image")
    umoci("new", "--image", "image:it")
    umoci("raw", "add-layer", "--image", "image:it", "layer.tar")
    umoci("unpack", *([] if os.geteuid() == 0 else ["--rootless"]), "--image", "image:it", "bundle")
    root = tmp_path / "bundle/rootfs"
    assert (root / "usr/bin/tool").samefile(root / "usr/bin/again")
    assert (root / "etc/hosts").read_text() == "here"
    assert (root / "etc/link").readlink() == Path("hosts")
    blobs = [json.loads(path.read_bytes()) for path in (tmp_path / "image/blobs/sha256").iterdir() if _is_json(path)]
    configs = [blob["rootfs"]["diff_ids"] for blob in blobs if "rootfs" in blob]
    assert [f"sha256:{hashlib.sha256((tmp_path / 'layer.tar').read_bytes()).hexdigest()}"] in configs


def _is_json(path: Path) -> bool:
    return path.read_bytes()[:1] == b"{"


def test_a_sparse_file_takes_no_memory_and_comes_back_with_its_holes(upper: Path, tmp_path: Path) -> None:
    with (upper / "disk").open("wb") as disk:
        for offset in (0, 40 << 20):
            disk.seek(offset)
            disk.write(b"data")
        disk.truncate(64 << 20)
    (tmp_path / "out").mkdir()
    with (tmp_path / "layer.tar").open("wb", buffering=0) as stream:
        write_layer(str(upper), stream, lowers=(), identities=own(Identities()))
    apply_layer(tmp_path / "layer.tar", str(tmp_path / "out"))
    assert (tmp_path / "out/disk").stat().st_blocks * 512 <= 1 << 18
    assert (tmp_path / "out/disk").read_bytes() == (upper / "disk").read_bytes()
