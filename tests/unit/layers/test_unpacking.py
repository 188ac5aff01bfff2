"""Archives of root file systems, written as the one layer there is."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import resource
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.layer import apply_layer as unpack
from tests.unit.children import as_ordinary_user
from tests.unit.layers.attributes import CAPABILITY
from tests.unit.tars import archive, directory, hardlink, member, stream_of, symlink
from tests.unit.trees import picture

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_each_way_of_packing_gives_the_same_file(pack: Callable[[bytes], bytes], tmp_path: Path, target: Path) -> None:
    plain = archive(directory("etc"), member("etc/motd", data=b"hello"))
    packed = tmp_path / "root.tar"
    packed.write_bytes(pack(plain))
    unpack(packed, str(target))
    assert (target / "etc/motd").read_bytes() == b"hello"


def test_a_stream_that_cannot_seek_is_enough(target: Path) -> None:
    data = os.urandom(3 << 20)
    ends = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ends[0])
        with open(ends[1], "wb") as pipe:
            pipe.write(archive(member("big", data=data), member("small", data=b"x")))
        os._exit(0)
    os.close(ends[1])
    with open(ends[0], "rb") as pipe:
        unpack(pipe, str(target))
    os.waitpid(child, 0)
    assert (target / "big").read_bytes() == data
    assert (target / "small").read_bytes() == b"x"


def test_the_callers_stream_stays_open(target: Path) -> None:
    stream = stream_of(member("file"))
    unpack(stream, str(target))
    assert not stream.closed


def test_modes_and_times_are_the_archives_whatever_the_umask(target: Path) -> None:
    before = os.umask(0o077)
    try:
        tool = member("bin/tool", mode=0o4755, mtime=7)
        unpack(stream_of(directory("bin", mode=0o1777, mtime=5), tool, member("bin/data", mode=0o604)), str(target))
    finally:
        os.umask(before)
    assert stat.S_IMODE((target / "bin/tool").stat().st_mode) == 0o4755
    assert (target / "bin/tool").stat().st_mtime == 7
    assert stat.S_IMODE((target / "bin/data").stat().st_mode) == 0o604
    assert stat.S_IMODE((target / "bin").stat().st_mode) == 0o1777
    assert (target / "bin").stat().st_mtime == 5


@pytest.mark.parametrize(
    ("written", "nanoseconds"), [("1700000000.123456789", 1700000000123456789), ("-1.5", -1500000000), ("3", 3 * 10**9)]
)
def test_times_are_kept_to_the_nanosecond(written: str, nanoseconds: int, target: Path) -> None:
    unpack(stream_of(member("file", pax_headers={"mtime": written})), str(target))
    assert (target / "file").stat().st_mtime_ns == nanoseconds


def test_what_the_archive_does_not_say_is_always_the_same(target: Path) -> None:
    unpack(stream_of(member("a/b/file")), str(target))
    for path in (target, target / "a", target / "a/b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        assert path.stat().st_mtime == 0


def test_the_root_directory_has_a_member_of_its_own(target: Path) -> None:
    unpack(stream_of(directory("./", mode=0o711, mtime=9), member("./file")), str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o711
    assert target.stat().st_mtime == 9
    assert (target / "file").exists()


def test_links_and_fifos_are_made(target: Path) -> None:
    members = [
        member("usr/bin/tool", data=b"#!", mode=0o755),
        hardlink("usr/bin/same", "./usr/bin/tool"),
        symlink("bin", "usr/bin"),
        symlink("absolute", "/etc/nowhere"),
        member("pipe", kind=tarfile.FIFOTYPE, mode=0o620),
    ]
    unpack(stream_of(*members), str(target))
    assert (target / "usr/bin/same").samefile(target / "usr/bin/tool")
    assert os.readlink(target / "bin") == "usr/bin"
    assert os.readlink(target / "absolute") == "/etc/nowhere"
    assert stat.S_ISFIFO((target / "pipe").stat().st_mode)
    assert stat.S_IMODE((target / "pipe").stat().st_mode) == 0o620
    assert (target / "absolute").lstat().st_mtime == 0


def test_a_hard_link_to_a_symbolic_link_is_a_name_of_the_link(target: Path) -> None:
    unpack(stream_of(member("file"), symlink("soft", "file"), hardlink("twin", "soft")), str(target))
    assert os.readlink(target / "twin") == "file"


def test_a_member_behind_a_link_that_stays_inside_is_written_where_it_leads(target: Path) -> None:
    members = [directory("usr/lib"), symlink("lib", "usr/../usr/lib"), member("lib/libc.so", data=b"elf")]
    unpack(stream_of(*members), str(target))
    assert (target / "usr/lib/libc.so").read_bytes() == b"elf"
    assert (target / "lib").is_symlink()


def test_names_that_are_not_utf_8_stay_the_bytes_they_are(target: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        unpack(stream_of(member(name, data=b"x"), symlink(f"{name}-link", name), form=form), str(target))
        assert sorted(os.listdir(os.fsencode(target))) == [b"caf\xe9", b"caf\xe9-link"]
        assert os.readlink(os.fsencode(target / f"{name}-link")) == b"caf\xe9"
        for path in target.iterdir():
            path.unlink()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_kept(form: int, target: Path) -> None:
    name = "/".join(["d" * 200] * 3)
    unpack(stream_of(member(name, data=b"deep"), symlink("link", name), form=form), str(target))
    assert (target / name).read_bytes() == b"deep"
    assert os.readlink(target / "link") == name


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_holes_stay_holes(form: str, tmp_path: Path, target: Path) -> None:
    with (tmp_path / "disk").open("wb") as disk:
        for offset in (0, 5 << 20, 40 << 20):
            disk.seek(offset)
            disk.write(b"data")
        disk.truncate(64 << 20)
    command = ["tar", "--sparse", f"--format={form}", "-cf", "disk.tar", "disk"]
    subprocess.run(command, cwd=tmp_path, check=True)
    unpack(tmp_path / "disk.tar", str(target))
    assert (target / "disk").read_bytes() == (tmp_path / "disk").read_bytes()
    assert (target / "disk").stat().st_blocks * 512 < 1 << 20


def test_the_tree_is_the_one_that_gnu_tar_makes(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "source"
    for depth in range(300):  # more directories than are held open
        (source / f"{depth % 7}/{depth}/x").mkdir(parents=True)
        (source / f"{depth % 7}/{depth}/x/file").write_bytes(b"%d" % depth * depth)
    os.link(source / "0/7/x/file", source / "twin")
    os.symlink("twin", source / "soft")
    (source / "3").chmod(0o550)
    subprocess.run(["tar", "--format=posix", "-C", source, "-cf", tmp_path / "root.tar", "."], check=True)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run(["tar", "-xpf", tmp_path / "root.tar", "-C", theirs], check=True)
    unpack(tmp_path / "root.tar", str(target))
    assert picture(target) == picture(theirs)
    assert (target / "twin").samefile(target / "0/7/x/file")


def test_a_later_member_replaces_an_earlier_one(target: Path) -> None:
    members = [
        member("file", data=b"old"),
        symlink("link", "file"),
        directory("empty"),
        directory("kept"),
        member("kept/inside"),
        member("file", data=b"new"),
        member("link", data=b"no link"),
        member("empty", data=b"no directory"),
        directory("kept", mode=0o700),
    ]
    unpack(stream_of(*members), str(target))
    assert (target / "file").read_bytes() == b"new"
    assert (target / "link").read_bytes() == b"no link"
    assert (target / "empty").read_bytes() == b"no directory"
    assert (target / "kept/inside").exists()
    assert stat.S_IMODE((target / "kept").stat().st_mode) == 0o700


def test_user_attributes_are_kept_and_orders_to_overlayfs_are_not(target: Path) -> None:
    headers = {"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.user.overlay.redirect": "/etc", "comment": "no"}
    unpack(stream_of(directory("d", pax_headers=headers), member("f", pax_headers=headers)), str(target))
    for name in ("d", "f"):
        assert os.listxattr(target / name) == ["user.note"]
        assert os.getxattr(target / name, "user.note") == b"kept"


@pytest.mark.needs("root")
def test_as_root_owners_devices_and_capabilities_are_kept(target: Path) -> None:
    capability = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
    members = [
        directory("home", uid=1000, gid=1001),
        member("home/ping", uid=1000, gid=1001, mode=0o6755, pax_headers=capability),
        member("dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("dev/disk", kind=tarfile.BLKTYPE, devmajor=8, devminor=1, mode=0o660, gid=6),
        member("link", kind=tarfile.SYMTYPE, linkname="x", uid=5, gid=6),
    ]
    unpack(stream_of(*members), str(target))
    ping = (target / "home/ping").stat()
    assert (ping.st_uid, ping.st_gid, stat.S_IMODE(ping.st_mode)) == (1000, 1001, 0o6755)
    assert os.getxattr(target / "home/ping", "security.capability") == CAPABILITY
    assert ((target / "home").stat().st_uid, (target / "link").lstat().st_gid) == (1000, 6)
    null, disk = (target / "dev/null").stat(), (target / "dev/disk").stat()
    assert (null.st_mode, null.st_rdev) == (stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert (disk.st_mode, disk.st_rdev, disk.st_gid) == (stat.S_IFBLK | 0o660, os.makedev(8, 1), 6)


def test_an_ordinary_user_owns_all_and_has_files_that_nobody_writes_to_for_devices(tmp_path: Path) -> None:
    capability = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
    members = [
        directory("closed", mode=0o000),
        directory("closed/inner", mode=0o500),
        member("closed/file", data=b"x", uid=0, mode=0o400),
        member("ping", pax_headers=capability),
        member("dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
        hardlink("dev/zilch", "dev/null"),
        member("pipe", kind=tarfile.FIFOTYPE),
    ]
    stream = stream_of(*members)

    def check() -> None:
        os.mkdir("root")
        unpack(stream, "root")
        assert sorted(os.listdir("root")) == ["closed", "dev", "ping", "pipe"]
        for name in ("null", "zilch"):
            status = os.lstat(f"root/dev/{name}")
            assert (status.st_mode, status.st_size) == (stat.S_IFREG | 0o400, 0)
        assert os.lstat("root/ping").st_uid == os.geteuid() != 0
        assert stat.S_IMODE(os.lstat("root/closed").st_mode) == 0
        os.chmod("root/closed", 0o700)
        assert Path("root/closed/file").read_bytes() == b"x"

    as_ordinary_user(tmp_path, check)


def test_a_link_is_replaced_and_never_written_through(target: Path) -> None:
    outside = target.parent / "outside"
    outside.write_bytes(b"kept")
    members = [symlink("file", "../outside"), member("file", data=b"mine"), symlink("d", ".."), directory("d")]
    unpack(stream_of(*members, member("d/inside")), str(target))
    assert outside.read_bytes() == b"kept"
    assert (target / "file").read_bytes() == b"mine"
    assert (target / "d/inside").exists()
    assert not (target / "d").is_symlink()


def test_more_directories_than_descriptors_are_no_trouble(tmp_path: Path) -> None:
    stream = stream_of(*[member(f"{number}/file") for number in range(600)])

    def check() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))
        os.mkdir("root")
        unpack(stream, "root")
        assert len(os.listdir("root")) == 600

    as_ordinary_user(tmp_path, check)


def test_no_descriptor_stays_open(target: Path) -> None:
    before = os.listdir("/proc/self/fd")
    unpack(stream_of(*[member(f"{depth}/x/y/file") for depth in range(90)]), str(target))
    with pytest.raises(ImageError):
        unpack(stream_of(member("../x")), str(target / "0/x/y"))
    assert os.listdir("/proc/self/fd") == before
