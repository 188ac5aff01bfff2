"""Others read the layers that are written: tarfile, GNU tar, umoci, and what applies them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from tests.unit.layers.written import layer_of, own, small_tree

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
