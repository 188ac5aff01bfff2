"""Archives, sound and hostile, written as the one layer of a root file system."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import resource
import stat
import subprocess
import sys
import tarfile
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.layer import apply_layer as unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    Member = tuple[tarfile.TarInfo, bytes]

NOBODY = 65534
CAPABILITY = b"\1\0\0\2\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> Member:
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, len(data)
    for field, value in fields.items():
        setattr(header, field, value)
    return header, data


def directory(name: str, mode: int = 0o755, **fields: object) -> Member:
    return member(name, tarfile.DIRTYPE, b"", mode=mode, **fields)


def symlink(name: str, target: str) -> Member:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> Member:
    return member(name, tarfile.LNKTYPE, linkname=target)


def archive(*members: Member, form: int = tarfile.PAX_FORMAT) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for header, data in members:
            tar.addfile(header, io.BytesIO(data))
    stream.seek(0)
    return stream


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def as_ordinary_user(place: Path, action: Callable[[], None]) -> None:
    """Run ``action`` in ``place``, which becomes writable, as a user without rights."""
    place.chmod(0o777)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(place)  # what is above it may be closed to the user
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            action()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def listing(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Return all that can be seen of a tree: what two equal ones have in common."""
    seen: dict[bytes, tuple[object, ...]] = {}
    for folder, directories, files in os.walk(os.fsencode(root)):
        for path in [folder, *(os.path.join(folder, name) for name in directories + files)]:
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            owner = (status.st_uid, status.st_gid, status.st_rdev)
            name = os.path.relpath(path, os.fsencode(root))
            seen[name] = (status.st_mode, owner, status.st_mtime_ns, content)
    return seen


def assert_refused(target: Path, words: str, *members: Member) -> None:
    outside = target.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"kept")
    with pytest.raises(ImageError) as caught:
        unpack(archive(*members), str(target))
    assert words in caught.value.message
    assert "the archive: " in caught.value.message
    assert caught.value.hint
    assert sorted(path.name for path in target.parent.iterdir()) == ["outside", "target"]
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_bytes() == b"kept"
    assert (outside / "file").stat().st_nlink == 1


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_each_way_of_packing_gives_the_same_file(pack: Callable[[bytes], bytes], tmp_path: Path, target: Path) -> None:
    plain = archive(directory("etc"), member("etc/motd", data=b"hello")).getvalue()
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
            pipe.write(archive(member("big", data=data), member("small", data=b"x")).getvalue())
        os._exit(0)
    os.close(ends[1])
    with open(ends[0], "rb") as pipe:
        unpack(pipe, str(target))
    os.waitpid(child, 0)
    assert (target / "big").read_bytes() == data
    assert (target / "small").read_bytes() == b"x"


def test_the_callers_stream_stays_open(target: Path) -> None:
    stream = archive(member("file"))
    unpack(stream, str(target))
    assert not stream.closed


def test_modes_and_times_are_the_archives_whatever_the_umask(target: Path) -> None:
    before = os.umask(0o077)
    try:
        tool = member("bin/tool", mode=0o4755, mtime=7)
        unpack(archive(directory("bin", mode=0o1777, mtime=5), tool, member("bin/data", mode=0o604)), str(target))
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
    unpack(archive(member("file", pax_headers={"mtime": written})), str(target))
    assert (target / "file").stat().st_mtime_ns == nanoseconds


def test_what_the_archive_does_not_say_is_always_the_same(target: Path) -> None:
    unpack(archive(member("a/b/file")), str(target))
    for path in (target, target / "a", target / "a/b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        assert path.stat().st_mtime == 0


def test_the_root_directory_has_a_member_of_its_own(target: Path) -> None:
    unpack(archive(directory("./", mode=0o711, mtime=9), member("./file")), str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o711
    assert target.stat().st_mtime == 9
    assert (target / "file").exists()


def test_links_and_fifos_are_made(target: Path) -> None:
    members = [
        member("usr/bin/tool", data=b"#!", mode=0o755),
        hardlink("usr/bin/same", "./usr/bin/tool"),
        symlink("bin", "usr/bin"),
        symlink("absolute", "/etc/nowhere"),
        member("pipe", tarfile.FIFOTYPE, mode=0o620),
    ]
    unpack(archive(*members), str(target))
    assert (target / "usr/bin/same").samefile(target / "usr/bin/tool")
    assert os.readlink(target / "bin") == "usr/bin"
    assert os.readlink(target / "absolute") == "/etc/nowhere"
    assert stat.S_ISFIFO((target / "pipe").stat().st_mode)
    assert stat.S_IMODE((target / "pipe").stat().st_mode) == 0o620
    assert (target / "absolute").lstat().st_mtime == 0


def test_a_hard_link_to_a_symbolic_link_is_a_name_of_the_link(target: Path) -> None:
    unpack(archive(member("file"), symlink("soft", "file"), hardlink("twin", "soft")), str(target))
    assert os.readlink(target / "twin") == "file"


def test_a_member_behind_a_link_that_stays_inside_is_written_where_it_leads(target: Path) -> None:
    members = [directory("usr/lib"), symlink("lib", "usr/../usr/lib"), member("lib/libc.so", data=b"elf")]
    unpack(archive(*members), str(target))
    assert (target / "usr/lib/libc.so").read_bytes() == b"elf"
    assert (target / "lib").is_symlink()


def test_names_that_are_not_utf_8_stay_the_bytes_they_are(target: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        unpack(archive(member(name, data=b"x"), symlink(f"{name}-link", name), form=form), str(target))
        assert sorted(os.listdir(os.fsencode(target))) == [b"caf\xe9", b"caf\xe9-link"]
        assert os.readlink(os.fsencode(target / f"{name}-link")) == b"caf\xe9"
        for path in target.iterdir():
            path.unlink()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_kept(form: int, target: Path) -> None:
    name = "/".join(["d" * 200] * 3)
    unpack(archive(member(name, data=b"deep"), symlink("link", name), form=form), str(target))
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
    assert listing(target) == listing(theirs)
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
    unpack(archive(*members), str(target))
    assert (target / "file").read_bytes() == b"new"
    assert (target / "link").read_bytes() == b"no link"
    assert (target / "empty").read_bytes() == b"no directory"
    assert (target / "kept/inside").exists()
    assert stat.S_IMODE((target / "kept").stat().st_mode) == 0o700


def test_a_directory_replaced_by_a_link_is_not_entered_any_more(target: Path) -> None:
    # Going by way of s opens a/b and leaves it empty, so that it can be replaced.
    members = [directory("a/b"), symlink("s", "a/b/.."), member("s/file"), symlink("a/b", "../../outside")]
    assert_refused(target, "member 'a/b/mine': it lies behind a symbolic link", *members, member("a/b/mine"))


def test_user_attributes_are_kept_and_orders_to_overlayfs_are_not(target: Path) -> None:
    headers = {"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.user.overlay.redirect": "/etc", "comment": "no"}
    unpack(archive(directory("d", pax_headers=headers), member("f", pax_headers=headers)), str(target))
    for name in ("d", "f"):
        assert os.listxattr(target / name) == ["user.note"]
        assert os.getxattr(target / name, "user.note") == b"kept"


@pytest.mark.needs("root")
def test_as_root_owners_devices_and_capabilities_are_kept(target: Path) -> None:
    capability = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
    members = [
        directory("home", uid=1000, gid=1001),
        member("home/ping", uid=1000, gid=1001, mode=0o6755, pax_headers=capability),
        member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("dev/disk", tarfile.BLKTYPE, devmajor=8, devminor=1, mode=0o660, gid=6),
        member("link", tarfile.SYMTYPE, linkname="x", uid=5, gid=6),
    ]
    unpack(archive(*members), str(target))
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
        member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        hardlink("dev/zilch", "dev/null"),
        member("pipe", tarfile.FIFOTYPE),
    ]
    stream = archive(*members)

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


@pytest.mark.parametrize(
    ("words", "members"),
    [
        ("member '/etc/passwd': '/etc/passwd' is absolute", [member("/etc/passwd")]),
        ("member '../outside/file': '../outside/file' has .. in it", [member("../outside/file")]),
        ("member 'a/../../x': 'a/../../x' has .. in it", [directory("a/../../x")]),
        ("behind the symbolic link 'out'", [symlink("out", "/"), member("out/file")]),
        ("a symbolic link that leads out", [symlink("out", "../outside"), member("out/file", data=b"gone")]),
        ("a symbolic link that leads out", [symlink("out", "../outside"), directory("out/below")]),
        ("a symbolic link that leads out", [directory("a"), symlink("a/b", "../.."), symlink("a/b/x", "y")]),
        ("'../outside/file' has .. in it", [hardlink("mine", "../outside/file")]),
        ("'/etc/passwd' is absolute", [hardlink("mine", "/etc/passwd")]),
        ("a symbolic link that leads out", [symlink("out", "../outside"), hardlink("mine", "out/file")]),
        ("which leads out", [symlink("loop", "loop"), member("loop/file")]),
        ("it lies below 'file', which is no directory", [member("file"), member("file/below")]),
        ("its target 'later' does not come before it", [hardlink("mine", "later"), member("later")]),
        ("a hard link to itself", [member("mine"), hardlink("mine", "mine")]),
        ("a hard link to the root directory", [hardlink("mine", ".")]),
        ("it would replace the root directory", [symlink(".", "/")]),
        ("its type is b'V'", [member("label", b"V")]),
    ],
)
def test_a_member_that_leads_out_is_refused_by_name(words: str, members: list[Member], target: Path) -> None:
    assert_refused(target, words, *members)


def test_a_link_is_replaced_and_never_written_through(target: Path) -> None:
    outside = target.parent / "outside"
    outside.write_bytes(b"kept")
    members = [symlink("file", "../outside"), member("file", data=b"mine"), symlink("d", ".."), directory("d")]
    unpack(archive(*members, member("d/inside")), str(target))
    assert outside.read_bytes() == b"kept"
    assert (target / "file").read_bytes() == b"mine"
    assert (target / "d/inside").exists()
    assert not (target / "d").is_symlink()


def test_a_directory_with_files_is_not_replaced(target: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot write member 'd': Directory not empty"):
        unpack(archive(directory("d"), member("d/file"), symlink("d", "x")), str(target))


def test_a_name_that_no_file_can_have_is_an_error(target: Path) -> None:
    with pytest.raises(ImageError, match="File name too long") as caught:
        unpack(archive(member("n" * 300)), str(target))
    assert "member 'nnn" in caught.value.message


def refusal(source: bytes | IO[bytes], target: Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        unpack(io.BytesIO(source) if isinstance(source, bytes) else source, str(target))
    return caught.value


@pytest.mark.parametrize("content", [b"", b"hello\n" * 500, b"\x7fELF" + bytes(60), bytes(100), os.urandom(5000)])
def test_what_is_no_archive_is_told_so(content: bytes, target: Path) -> None:
    error = refusal(content, target)
    assert "is no tar" in error.message or "truncated or corrupt" in error.message
    assert error.hint


def test_the_hint_names_what_can_be_read(tmp_path: Path, target: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello\n" * 500)
    with pytest.raises(ImageError) as caught:
        unpack(text, str(target))
    assert caught.value.message.startswith(f"{text} is no tar: ")
    assert caught.value.hint == "it has to be a tar, plain or packed by gzip, bzip2, xz or zstd"


def test_zstd_is_named_where_it_cannot_be_read(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    error = refusal(b"\x28\xb5\x2f\xfd" + bytes(100), target)
    assert "packed by zstd" in error.message
    assert "unzstd" in error.hint


def test_an_archive_that_is_not_there_is_an_error_with_its_path(tmp_path: Path, target: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read the archive .*/none\.tar: No such file or directory"):
        unpack(tmp_path / "none.tar", str(target))


def _small() -> bytes:
    return archive(directory("a"), member("a/file", data=b"x" * 1500), member("\xe9" * 90, data=b"y")).getvalue()


def _end_of(plain: bytes) -> int:
    return len(plain.rstrip(b"\0")) // 512 * 512 + 512


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_cut_anywhere_is_truncated(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    packed = pack(_small())
    end = _end_of(packed) + 512 if pack is bytes else len(packed)
    for cut in range(600 if pack is bytes else 20, end, 64 if pack is bytes else 7):
        target = tmp_path / str(cut)
        target.mkdir()
        error = refusal(packed[:cut], target)
        assert "truncated or corrupt" in error.message or "is no tar" in error.message
        assert error.hint


def test_a_header_damaged_in_the_middle_is_not_taken_for_the_end(target: Path) -> None:
    plain = bytearray(archive(member("one", data=b"1"), member("two", data=b"2"), member("three")).getvalue())
    plain[1024 + 3] ^= 1
    error = refusal(bytes(plain), target)
    assert error.message.endswith("truncated or corrupt: there is no header before byte 1536")
    assert "fetch or make it again" in error.hint


def test_a_wrong_checksum_of_the_packed_stream_is_found(target: Path) -> None:
    packed = bytearray(gzip.compress(_small()))
    packed[-6] ^= 1
    assert "CRC" in refusal(bytes(packed), target).message


def test_more_than_is_allowed_does_not_come_out(target: Path) -> None:
    bomb = io.BytesIO(gzip.compress(archive(member("zeros", data=bytes(9 << 20))).getvalue()))
    with pytest.raises(ImageError, match="holds more than the 1000000 bytes that it may"):
        unpack(bomb, str(target), max_bytes=1_000_000)
    assert (target / "zeros").stat().st_size <= 1_000_000


def test_a_header_that_claims_to_be_huge_is_not_read(target: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 7 << 30
    block = header.tobuf(tarfile.GNU_FORMAT)
    assert "a header of 7516192768 bytes" in refusal(block + bytes(1 << 16), target).message


def test_a_negative_size_is_corrupt(target: Path) -> None:
    header = tarfile.TarInfo("x")
    header.size = -4096
    block = header.tobuf(tarfile.GNU_FORMAT)
    assert "truncated or corrupt" in refusal(member_block("first") + block + bytes(4096), target).message


def member_block(name: str) -> bytes:
    return tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("holes", ["0,-5", "9,1,3,1", "0,99"])
def test_an_impossible_map_of_holes_is_refused(holes: str, target: Path) -> None:
    headers = {"GNU.sparse.map": holes, "GNU.sparse.size": "20"}
    stream = archive(member("disk", data=b"0123456789", pax_headers=headers))
    with pytest.raises(ImageError, match="its map of holes is impossible"):
        unpack(stream, str(target))


def test_a_directory_with_files_is_no_target(target: Path) -> None:
    (target / "here").touch()
    with pytest.raises(ImageError, match="into a directory that has files"):
        unpack(archive(), str(target))


def test_more_directories_than_descriptors_are_no_trouble(tmp_path: Path) -> None:
    stream = archive(*[member(f"{number}/file") for number in range(600)])

    def check() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))
        os.mkdir("root")
        unpack(stream, "root")
        assert len(os.listdir("root")) == 600

    as_ordinary_user(tmp_path, check)


def test_no_descriptor_stays_open(target: Path) -> None:
    before = os.listdir("/proc/self/fd")
    unpack(archive(*[member(f"{depth}/x/y/file") for depth in range(90)]), str(target))
    with pytest.raises(ImageError):
        unpack(archive(member("../x")), str(target / "0/x/y"))
    assert os.listdir("/proc/self/fd") == before


_NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "outside", ""]), max_size=4).map("/".join)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@given(st.lists(st.tuples(_NAMES, _KINDS, _NAMES), max_size=8))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_order_of_members_writes_outside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, str]]
) -> None:
    place = tmp_path_factory.mktemp("hostile")
    (place / "target").mkdir()
    (place / "outside").mkdir()
    (place / "outside/a").write_bytes(b"kept")
    before = listing(place / "outside")
    parts = [member(name, kind, linkname=link, mode=0o755) for name, kind, link in members]
    try:
        unpack(archive(*parts), str(place / "target"))
    except ImageError as error:
        assert "cannot write member" in error.message  # noqa: PT017
    assert sorted(path.name for path in place.iterdir()) == ["outside", "target"]
    assert listing(place / "outside") == before
    assert (place / "outside/a").stat().st_nlink == 1


@given(st.integers(0, 3 * 512 - 1), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_in_the_headers_gives_a_tree_or_an_image_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    plain = bytearray(_small())
    plain[at] = value
    try:
        unpack(io.BytesIO(plain), str(tmp_path_factory.mktemp("damaged")))
    except ImageError as error:
        assert error.hint  # noqa: PT017
