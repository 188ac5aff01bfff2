"""What is in a layer that was written, and whose it is."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.layer import Identities, write_layer
from pytest_sandbox_runtime.specs import SOURCE_DATE_EPOCH
from tests.unit.layers.attributes import CAPABILITY, OVERRIDE
from tests.unit.layers.written import OLD, layer_of, make_old, members, own, small_tree

if TYPE_CHECKING:
    from pathlib import Path


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
