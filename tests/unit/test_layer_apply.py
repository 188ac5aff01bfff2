"""Layers' tars, sound and hostile, written as the lower directories of overlays."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import io
import lzma
import os
import stat
import sys
import tarfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.layer import AppliedLayer, Identities, apply_layer, write_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    Member = tuple[tarfile.TarInfo, bytes]

NOBODY = 65534
CAPABILITY = b"\1\0\0\2\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
OVERRIDE = "user.containers.override_stat"


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> Member:
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, len(data)
    for field, value in fields.items():
        setattr(header, field, value)
    return header, data


def directory(name: str, mode: int = 0o755, **fields: Any) -> Member:
    return member(name, b"", tarfile.DIRTYPE, mode=mode, **fields)


def symlink(name: str, target: str, **fields: Any) -> Member:
    return member(name, b"", tarfile.SYMTYPE, linkname=target, **fields)


def hardlink(name: str, target: str) -> Member:
    return member(name, b"", tarfile.LNKTYPE, linkname=target)


def archive(*members: Member) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", encoding="utf-8", errors="surrogateescape") as tar:
        for header, data in members:
            tar.addfile(header, io.BytesIO(data))
    return stream.getvalue()


class Layers:
    """Layers applied one over the other, the newest first."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.paths: list[Path] = []

    def apply(self, *members: Member, **options: Any) -> Path:
        """Apply a layer of ``members`` over those before it, as for an overlay with userxattr."""
        self.done = self.apply_bytes(archive(*members), **options)
        return self.paths[0]

    def apply_bytes(self, layer: bytes, **options: Any) -> AppliedLayer:
        target = self.place / f"layer-{len(self.paths)}"
        target.mkdir()
        lowers = [str(path) for path in self.paths]
        options = {"user_namespace": True, **options}
        done = apply_layer(io.BytesIO(layer), str(target), lowers=lowers, **options)
        self.paths.insert(0, target)
        return done


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(tmp_path)


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "user.overlay.opaque" in os.listxattr(path) and os.getxattr(path, "user.overlay.opaque") == b"y"


def listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def as_ordinary_user(place: Path, action: Callable[[], None]) -> None:
    """Run ``action`` in ``place``, which becomes writable, as a user without rights."""
    place.chmod(0o777)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(place)
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


BASE = (
    directory("etc", 0o751, mtime=7),
    member("etc/hosts", b"old"),
    directory("etc/apt", 0o700, mtime=8),
    member("etc/apt/sources", b"old"),
    directory("usr/lib"),
    symlink("lib", "usr/lib"),
)


# Whiteouts


def test_a_whiteout_becomes_what_overlayfs_knows(layers: Layers) -> None:
    layers.apply(*BASE)
    upper = layers.apply(directory("etc", 0o751), member("etc/.wh.hosts"), member(".wh.usr"))
    assert listing(upper) == ["etc", "etc/hosts", "usr"]
    assert is_whiteout(upper / "etc/hosts")
    assert is_whiteout(upper / "usr")


def test_an_opaque_directory_gets_the_attribute(layers: Layers) -> None:
    layers.apply(*BASE)
    upper = layers.apply(directory("etc"), member("etc/.wh..wh..opq"), member("etc/new"))
    assert listing(upper) == ["etc", "etc/new"]
    assert is_opaque(upper / "etc")


@pytest.mark.needs("root")
def test_as_root_it_is_the_trusted_one(layers: Layers) -> None:
    layers.apply(*BASE)
    upper = layers.apply(directory("etc"), member("etc/.wh..wh..opq"), user_namespace=False)
    assert [name for name in os.listxattr(upper / "etc") if "overlay" in name] == ["trusted.overlay.opaque"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_whiteout_hides_nothing_of_its_own_layer(order: int, layers: Layers) -> None:
    layers.apply(*BASE)
    members = [member(".wh.etc"), directory("etc"), member("etc/new"), member("usr/.wh..wh..opq"), member("usr/lib")]
    upper = layers.apply(*members[::order] if order == 1 else [members[1], members[2], members[0], *members[:2:-1]])
    assert listing(upper) == ["etc", "etc/new", "usr", "usr/lib"]
    assert is_opaque(upper / "etc")
    assert is_opaque(upper / "usr")
    assert (upper / "usr/lib").is_file()


def test_a_whiteout_and_a_file_of_one_name_are_the_file(layers: Layers) -> None:
    layers.apply(*BASE)
    upper = layers.apply(member("etc/hosts", b"new"), member("etc/.wh.hosts"))
    assert (upper / "etc/hosts").read_bytes() == b"new"


def test_a_whiteout_of_nothing_is_not_made(layers: Layers) -> None:
    # overlayfs would list it in a directory that nothing is merged with.
    layers.apply(*BASE)
    upper = layers.apply(
        directory("new"),
        *(member(f"{name}/.wh.gone") for name in ("new", "etc", "nowhere/at/all", "etc/hosts")),
        directory("etc/apt"),
        member("etc/apt/.wh..wh..opq"),
        member("etc/apt/.wh.sources"),
    )
    assert listing(upper) == ["etc", "etc/apt", "new"]


def test_a_lowest_layer_has_no_whiteouts(layers: Layers) -> None:
    assert listing(layers.apply(member("etc/.wh.hosts"), member(".wh.usr"))) == []


def test_an_opaque_root_hides_all_that_is_below(layers: Layers) -> None:
    layers.apply(*BASE)
    upper = layers.apply(member(".wh..wh..opq"), directory("etc"), member("lib"))
    assert listing(upper) == ["etc", "lib", "usr"]
    assert is_opaque(upper / "etc")
    assert is_whiteout(upper / "usr")


def test_what_aufs_kept_for_itself_is_left_out(layers: Layers) -> None:
    members = [member(".wh..wh.aufs"), directory(".wh..wh.plnk"), member(".wh..wh.plnk/17.3", b"x"), member("file")]
    assert listing(layers.apply(*members)) == ["file"]


@pytest.mark.parametrize("name", [".wh.", "etc/.wh.", ".wh..", "etc/.wh..."])
def test_a_whiteout_of_no_name_is_refused(name: str, layers: Layers) -> None:
    with pytest.raises(ImageError, match="a whiteout of no name") as caught:
        layers.apply(member(name))
    assert repr(name) in caught.value.message


def test_a_member_in_a_whiteout_is_refused(layers: Layers) -> None:
    with pytest.raises(ImageError, match="it lies in a whiteout"):
        layers.apply(member(".wh.etc/file"))


# What a layer does not say


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


# Owners that cannot be set

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


# Streams


ZSTD = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def zstd(data: bytes) -> bytes:
    return bytes(ZSTD.compress(data))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
def test_the_digest_is_that_of_the_unpacked_tar(pack: Callable[[bytes], bytes], layers: Layers) -> None:
    plain = archive(directory("etc"), member("etc/file", os.urandom(3 << 20)), hardlink("twin", "etc/file")) + bytes(
        777
    )
    done = layers.apply_bytes(pack(plain))
    assert done == AppliedLayer(
        f"sha256:{hashlib.sha256(plain).hexdigest()}", len(plain), stands_alone=True, owners_lost=0
    )
    assert (layers.paths[0] / "twin").samefile(layers.paths[0] / "etc/file")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
def test_a_layer_cut_anywhere_is_truncated(pack: Callable[[bytes], bytes], layers: Layers) -> None:
    plain = archive(*BASE)
    packed = pack(plain)
    end = len(plain.rstrip(b"\0")) if pack is bytes else len(packed)
    for cut in range(1, end, 331 if pack is bytes else 19):
        with pytest.raises(ImageError, match="truncated or corrupt|is no tar") as caught:
            Layers(_new(layers.place / str(cut))).apply_bytes(packed[:cut])
        assert caught.value.hint


def _new(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_bomb_is_stopped_and_may_be_let_off(layers: Layers, tmp_path: Path) -> None:
    size = 300 << 20
    header = tarfile.TarInfo("zeros")
    header.size = size
    bomb = tmp_path / "bomb.tar.zst"
    with ZSTD.open(bomb, "wb") as packer:
        packer.write(header.tobuf())
        for _ in range(size >> 20):
            packer.write(bytes(1 << 20))
        packer.write(bytes(1024))
    with pytest.raises(ImageError, match="more than 2000 times as much") as caught:
        layers.apply_bytes(bomb.read_bytes())
    assert "pytest-sandbox load --max-ratio" in caught.value.hint
    with pytest.raises(ImageError, match="more than the 1000000 bytes"):
        Layers(_new(tmp_path / "again")).apply_bytes(bomb.read_bytes(), max_bytes=1_000_000)
    let_off = Layers(_new(tmp_path / "let-off"))
    let_off.apply_bytes(bomb.read_bytes(), max_ratio=10**6)
    status = (let_off.paths[0] / "zeros").stat()
    assert (status.st_size, status.st_blocks) == (size, 0)


# Bad input


@pytest.mark.parametrize(
    ("words", "members"),
    [
        ("'/etc/passwd' is absolute", [member("/etc/passwd")]),
        ("'/.wh.etc' is absolute", [member("/.wh.etc")]),
        ("'a/../../x' has .. in it", [member("a/../../x")]),
        ("'../.wh.x' has .. in it", [member("../.wh.x")]),
        ("which leads out", [symlink("out", "/"), member("out/file")]),
        ("that leads out", [symlink("out", "../outside"), member("out/file")]),
        ("'/etc/passwd' is absolute", [hardlink("mine", "/etc/passwd")]),
        ("its type is b'V'", [member("label", b"", b"V")]),
    ],
)
def test_a_member_that_leads_out_is_refused_by_name(words: str, members: list[Member], layers: Layers) -> None:
    layers.apply(*BASE)
    before = sorted(os.listdir(layers.place))
    with pytest.raises(ImageError) as caught:
        layers.apply(*members)
    assert words in caught.value.message
    assert sorted(os.listdir(layers.place)) == [*before, "layer-1"]


def test_whiteouts_behind_links_that_lead_out_hide_nothing(layers: Layers) -> None:
    (layers.place / "outside").mkdir()
    (layers.place / "outside/file").write_text("kept")
    upper = layers.apply(symlink("out", "../outside"), member("out/.wh.file"), member("out/.wh..wh..opq"))
    assert listing(upper) == ["out"]
    assert os.listxattr(layers.place / "outside") == []


_NAMES = st.lists(st.sampled_from(["a", "b", ".wh.a", ".wh..wh..opq", "..", ".", "out"]), max_size=4).map("/".join)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
_MEMBERS = st.lists(st.tuples(_NAMES, _KINDS, _NAMES), max_size=8)


@given(_MEMBERS, _MEMBERS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_order_of_members_writes_outside(
    tmp_path_factory: pytest.TempPathFactory, first: list[tuple[str, bytes, str]], second: list[tuple[str, bytes, str]]
) -> None:
    place = tmp_path_factory.mktemp("hostile")
    (place / "out").mkdir()
    (place / "out/a").write_bytes(b"kept")
    layers = Layers(place)
    for names in (first, second):
        members = [member(name, b"", kind, linkname=link, mode=0o755) for name, kind, link in names]
        try:
            layers.apply(*members)
        except ImageError as error:
            assert "cannot write member" in error.message  # noqa: PT017
            break
    lower = set(listing(layers.paths[-1])) if layers.paths else set()
    for path in layers.paths[:-1]:
        assert all(not is_whiteout(found) or str(found.relative_to(path)) in lower for found in path.rglob("*"))
    assert {path.name for path in place.iterdir()} <= {"out", "layer-0", "layer-1"}
    assert listing(place / "out") == ["a"]
    assert (place / "out/a").read_bytes() == b"kept"
    assert (place / "out/a").stat().st_nlink == 1


FUZZED = archive(
    directory("etc", pax_headers={"SCHILY.xattr.user.a": "b"}),
    member("etc/.wh.hosts"),
    member("etc/" + "long" * 40, b"x" * 700),
    member("usr/.wh..wh..opq"),
)


@given(st.lists(st.tuples(st.integers(0, len(FUZZED) - 1), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_changed_bytes_give_a_layer_or_an_image_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], packed: bool
) -> None:
    layer = bytearray(gzip.compress(FUZZED, mtime=0) if packed else FUZZED)
    for at, value in changes:
        layer[at % len(layer)] = value
    layers = Layers(tmp_path_factory.mktemp("damaged"))
    layers.apply(*BASE)
    try:
        layers.apply_bytes(bytes(layer))
    except ImageError as error:
        assert error.hint  # noqa: PT017
