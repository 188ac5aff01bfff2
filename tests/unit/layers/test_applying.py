"""What a layer does not say, and what can only be kept in attributes."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.layer import Identities, apply_layer, write_layer
from tests.unit.children import as_ordinary_user
from tests.unit.layers.applied import BASE, Layers
from tests.unit.layers.attributes import CAPABILITY, OVERRIDE
from tests.unit.tars import archive, directory, member, symlink
from tests.unit.trees import listing

if TYPE_CHECKING:
    from pathlib import Path


def test_a_directory_that_is_only_a_part_of_names_looks_as_below(layers: Layers) -> None:
    base = layers.apply(*BASE)
    os.setxattr(base / "etc/apt", "user.note", b"kept")
    upper = layers.apply(member("etc/apt/new"), member("other/new"))
    for name in ("etc", "etc/apt"):
        ours, theirs = (upper / name).stat(), (base / name).stat()
        assert (ours.st_mode, ours.st_mtime_ns) == (theirs.st_mode, theirs.st_mtime_ns)
    assert os.getxattr(upper / "etc/apt", "user.note") == b"kept"
    assert stat.S_IMODE((upper / "other").stat().st_mode) == 0o755
    assert not layers.done.stands_alone


@pytest.mark.needs("root")
def test_and_has_its_owner(layers: Layers) -> None:
    layers.apply(directory("home", uid=1000, gid=1001), directory("home/me", uid=1000, gid=1001))
    layers.apply(directory("home", uid=5, gid=6))
    upper = layers.apply(member("home/me/file"))
    assert [(path.stat().st_uid, path.stat().st_gid) for path in (upper / "home", upper / "home/me")] == [
        (5, 6),
        (1000, 1001),
    ]


def test_a_link_in_a_lower_layer_is_followed(layers: Layers) -> None:
    layers.apply(*BASE)
    upper = layers.apply(member("lib/libc.so", b"elf"), member("lib/.wh.none"))
    assert listing(upper) == ["usr", "usr/lib", "usr/lib/libc.so"]


def test_a_link_in_a_lower_layer_does_not_lead_out(layers: Layers) -> None:
    (layers.place / "outside").mkdir()
    layers.apply(symlink("out", "../outside"), symlink("root", "/"))
    for name in ("out/file", "root/file"):
        with pytest.raises(ImageError, match="leads out"):
            layers.apply(member(name))
        (layers.place / "layer-1").rmdir()
    assert listing(layers.place / "outside") == []


def test_what_stands_alone_says_so(layers: Layers) -> None:
    layers.apply(*BASE)
    layers.apply(directory("etc"), member("etc/new"))
    assert layers.done.stands_alone
    layers.apply(member(".wh.etc"))
    assert not layers.done.stands_alone


OWNED = (
    directory("home", 0o750, uid=1000, gid=1001),
    member("home/file", b"x", uid=1000, gid=1001, mode=0o4440, pax_headers={"SCHILY.xattr.user.note": "kept"}),
    symlink("home/link", "file", uid=1000, gid=1001),
    member("home/pipe", b"", tarfile.FIFOTYPE, uid=7, gid=8, mode=0o600),
    member("null", b"", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, gid=5),
    member("ping", b"x", pax_headers={"SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1")}),
    member("root", b"x"),
)


def test_an_ordinary_user_keeps_all_in_attributes(tmp_path: Path) -> None:
    layer = archive(*OWNED)

    def check() -> None:
        os.mkdir("layer")
        assert apply_layer(io.BytesIO(layer), "layer", user_namespace=True).owners_lost == 0
        assert os.getxattr("layer/home", OVERRIDE) == b"1000:1001:0750:dir"
        assert os.getxattr("layer/home/file", OVERRIDE) == b"1000:1001:4440:file"
        assert os.getxattr("layer/home/file", "user.note") == b"kept"
        assert stat.S_IMODE(os.stat("layer/home/file").st_mode) == 0o4440
        assert os.getxattr("layer/null", OVERRIDE) == b"0:5:0666:char-1-3"
        assert os.listxattr("layer/root") == []
        identities = Identities(((0, os.geteuid(), 1),), ((0, os.getegid(), 1),))
        assert stat.S_IMODE(os.stat("layer/null").st_mode) == 0o400
        stream = io.BytesIO()
        write_layer("layer", stream, lowers=(), user_namespace=True, identities=identities)
        with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
            found = {entry.name: entry for entry in tar}
        assert sorted(found) == sorted(header.name for header, _ in OWNED)
        for header, _ in OWNED:
            there = found[header.name]
            assert (there.uid, there.gid, there.type) == (header.uid, header.gid, header.type)
            assert header.issym() or there.mode == header.mode
            assert (there.devmajor, there.devminor) == (header.devmajor, header.devminor)
        assert found["ping"].pax_headers["SCHILY.xattr.security.capability"].encode() == CAPABILITY

    as_ordinary_user(tmp_path, check)


def test_an_archive_does_not_say_what_was_ours_to_say(layers: Layers) -> None:
    names = (OVERRIDE, "user.pytest-sandbox.owners", "user.overlay.opaque", "trusted.overlay.opaque", "user.note")
    headers = {f"SCHILY.xattr.{name}": "y" for name in names}
    top = layers.apply(directory("d", pax_headers=headers), member("f", pax_headers=headers))
    for name in ("d", "f"):
        assert [found for found in os.listxattr(top / name) if found != "security.selinux"] == ["user.note"]
