"""What an overlay's upper directory says; the upper directories here are made by hand, whiteouts as any user may."""

from __future__ import annotations

import os
import pickle
import stat
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.changes import Change, Changes, explain_difference, read_changes
from pytest_sandbox_runtime.errors import FileAccessError, SpecError

OLD = 1_000_000_000_123_456_789
PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
CHANGES = st.dictionaries(PATHS, st.sampled_from(["added", "modified", "deleted"])).map(
    lambda kinds: Changes.of(Change(path, kind, "file") for path, kind in kinds.items())
)


class Layers:
    """An upper directory and the lower ones, all of them written by hand."""

    def __init__(self, top: Path) -> None:
        self.upper, self.middle, self.bottom = (top / name for name in ("upper", "middle", "bottom"))
        for layer in (self.upper, self.middle, self.bottom):
            layer.mkdir()

    def changes(self, prefix: str = "/") -> Changes:
        """Return what the upper directory says, with two layers below it."""
        return read_changes([(prefix, str(self.upper), (str(self.middle), str(self.bottom)))])


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    """Return three empty layers."""
    return Layers(tmp_path)


def write(path: Path, text: str = "", *, mtime: int = OLD) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, ns=(mtime, mtime))


def make_whiteout(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, 0)


def make_opaque(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    os.setxattr(path, "user.overlay.opaque", b"y")


# Reading the layers


def test_nothing_written_is_no_change(layers: Layers) -> None:
    write(layers.bottom / "etc" / "hosts")
    assert layers.changes() == Changes()
    assert not layers.changes()


def test_an_added_directory_is_listed_with_all_that_is_in_it(layers: Layers) -> None:
    write(layers.upper / "opt" / "tool" / "run")
    (layers.upper / "opt" / "link").symlink_to("tool")
    os.mkfifo(layers.upper / "opt" / "fifo")
    assert layers.changes() == Changes(added=["/opt", "/opt/tool", "/opt/tool/run", "/opt/link", "/opt/fifo"])
    assert {change.path: change.type for change in layers.changes()} == {
        "/opt": "directory",
        "/opt/fifo": "fifo",
        "/opt/link": "symlink",
        "/opt/tool": "directory",
        "/opt/tool/run": "file",
    }


def test_a_merged_directory_counts_only_for_what_is_in_it(layers: Layers) -> None:
    write(layers.bottom / "etc" / "hosts", "old")
    write(layers.upper / "etc" / "hosts", "new")
    assert layers.changes() == Changes(modified=["/etc/hosts"])


def test_a_directory_with_another_mode_is_modified(layers: Layers) -> None:
    (layers.bottom / "etc").mkdir(mode=0o755)
    (layers.upper / "etc").mkdir(mode=0o700)
    assert list(layers.changes()) == [Change("/etc", "modified", "directory")]


def test_a_deleted_directory_is_listed_alone_and_with_what_it_was(layers: Layers) -> None:
    write(layers.bottom / "var" / "log" / "messages")
    make_whiteout(layers.upper / "var" / "log")
    assert list(layers.changes()) == [Change("/var/log", "deleted", "directory")]


def test_a_copy_that_is_as_it_was_is_no_change(layers: Layers) -> None:
    write(layers.bottom / "file", "same")
    write(layers.upper / "file", "same")
    assert layers.changes() == Changes()


@pytest.mark.parametrize(("text", "mtime"), [("same", OLD + 1), ("SAME", OLD), ("longer", OLD)])
def test_a_file_with_another_content_or_time_is_modified(layers: Layers, text: str, mtime: int) -> None:
    write(layers.bottom / "file", "same")
    write(layers.upper / "file", text, mtime=mtime)
    assert layers.changes() == Changes(modified=["/file"])


def test_a_file_that_differs_behind_its_first_mebibyte_is_modified(layers: Layers) -> None:
    write(layers.bottom / "file", "=" * (1 << 20) + "old")
    write(layers.upper / "file", "=" * (1 << 20) + "new")
    assert layers.changes() == Changes(modified=["/file"])


def test_a_symlink_that_leads_elsewhere_is_modified(layers: Layers) -> None:
    for layer, name in (
        (layers.bottom, "same"),
        (layers.bottom, "other"),
        (layers.upper, "same"),
        (layers.upper, "other"),
    ):
        (layer / name).symlink_to("new" if (layer, name) == (layers.upper, "other") else "old")
        os.utime(layer / name, ns=(OLD, OLD), follow_symlinks=False)
    assert layers.changes() == Changes(modified=["/other"])


def test_a_file_in_place_of_a_directory_is_one_change(layers: Layers) -> None:
    write(layers.bottom / "etc" / "hosts")
    write(layers.upper / "etc")
    assert list(layers.changes()) == [Change("/etc", "modified", "file")]


def test_a_directory_in_place_of_a_file_is_modified_and_what_is_in_it_added(layers: Layers) -> None:
    write(layers.bottom / "etc")
    write(layers.upper / "etc" / "hosts")
    assert layers.changes() == Changes(modified=["/etc"], added=["/etc/hosts"])


def test_a_directory_in_place_of_a_symlink_to_one_hides_what_is_there(layers: Layers) -> None:
    write(layers.bottom / "usr" / "lib" / "libc")
    (layers.bottom / "lib").symlink_to(layers.bottom / "usr" / "lib")
    write(layers.upper / "lib" / "libc")
    assert layers.changes() == Changes(modified=["/lib"], added=["/lib/libc"])


def test_an_opaque_directory_deletes_what_it_does_not_hold(layers: Layers) -> None:
    for name in ("kept", "gone", "sub/kept", "sub/gone"):
        write(layers.bottom / "etc" / name, "old")
    write(layers.bottom / "etc" / "lost" / "file")
    make_opaque(layers.upper / "etc")
    write(layers.upper / "etc" / "kept", "old")
    write(layers.upper / "etc" / "sub" / "kept", "new")
    write(layers.upper / "etc" / "new")
    assert layers.changes() == Changes(
        added=["/etc/new"], modified=["/etc/sub/kept"], deleted=["/etc/gone", "/etc/lost", "/etc/sub/gone"]
    )


def test_what_a_middle_layer_deleted_was_not_there(layers: Layers) -> None:
    for name in ("file", "again", "directory/file", "opaque/file"):
        write(layers.bottom / name)
    make_whiteout(layers.middle / "file")
    make_whiteout(layers.middle / "again")
    make_whiteout(layers.middle / "directory")
    make_opaque(layers.middle / "opaque")
    write(layers.middle / "opaque" / "other")
    for name in ("file", "directory/file", "opaque/file"):
        write(layers.upper / name)
    make_whiteout(layers.upper / "again")
    assert layers.changes() == Changes(added=["/file", "/directory", "/directory/file", "/opaque/file"])


def test_a_middle_layers_file_hides_the_bottoms(layers: Layers) -> None:
    write(layers.bottom / "file", "bottom")
    write(layers.middle / "file", "middle")
    write(layers.upper / "file", "bottom")
    assert layers.changes() == Changes(modified=["/file"])


def test_a_middle_layers_file_hides_a_directory_of_the_bottom(layers: Layers) -> None:
    write(layers.bottom / "etc" / "hosts")
    write(layers.middle / "etc")
    write(layers.upper / "etc" / "hosts")
    assert layers.changes() == Changes(modified=["/etc"], added=["/etc/hosts"])


def test_a_symlink_in_the_upper_directory_is_not_walked(layers: Layers, tmp_path: Path) -> None:
    write(tmp_path / "outside" / "secret")
    (layers.upper / "link").symlink_to(tmp_path / "outside")
    assert layers.changes() == Changes(added=["/link"])


def test_several_overlays_are_one_list(layers: Layers, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Layers(tmp_path / "second")
    write(layers.upper / "new")
    write(second.upper / "alice" / "new")
    both = [("/", str(layers.upper), (str(layers.bottom),)), ("/home", str(second.upper), (str(second.bottom),))]
    assert read_changes(both) == Changes(added=["/new", "/home/alice", "/home/alice/new"])


def test_a_name_that_is_not_utf8_comes_through(layers: Layers) -> None:
    write(Path(os.fsdecode(os.fsencode(layers.upper) + b"/caf\xe9")))
    assert [os.fsencode(path) for path in layers.changes().added] == [b"/caf\xe9"]
    assert r"\udce9" in repr(layers.changes())
    assert "\n".join(explain_difference(layers.changes(), Changes())).encode()


def test_a_layer_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"cannot read the changes below /home: .*none'"):
        read_changes([("/home", f"{tmp_path}/none", ())])


# The value


def test_changes_are_written_as_they_are_shown() -> None:
    changes = Changes(added=["/b", "/a"], deleted=["/c"])
    assert repr(changes) == "Changes(added=['/a', '/b'], deleted=['/c'])"
    assert changes.added == ("/a", "/b")
    assert repr(Changes()) == "Changes()"
    assert len(changes) == 3
    assert list(changes) == [Change("/a", "added"), Change("/b", "added"), Change("/c", "deleted")]


def test_equality_is_by_paths_and_kinds_and_not_by_types() -> None:
    assert Changes.of([Change("/a", "added", "file")]) == Changes(added=["/a"])
    assert hash(Changes.of([Change("/a", "added", "file")])) == hash(Changes(added=["/a"]))
    assert Changes(added=["/a"]) != Changes(modified=["/a"])


@pytest.mark.parametrize("paths", ["/etc/hosts", ["etc/hosts"], [""]])
def test_a_path_where_a_list_belongs_and_a_relative_one_are_refused(paths: list[str]) -> None:
    with pytest.raises(SpecError, match=r"added=.* is no list of absolute paths\n  hint: .*added="):
        Changes(added=paths)


def test_below_and_without_go_by_whole_names() -> None:
    changes = Changes(added=["/etc/new"], modified=["/etc"], deleted=["/etcetera", "/var/log/x"])
    assert changes.below("/etc") == changes.below("/etc/") == Changes(added=["/etc/new"], modified=["/etc"])
    assert changes.without("/etc", "/var/log") == Changes(deleted=["/etcetera"])
    assert changes.below("/") == changes == changes.without()


def test_a_difference_is_told_in_lines() -> None:
    left = Changes.of([Change("/a", "added", "file"), Change("/b", "deleted", "file"), Change("/c", "added", "file")])
    right = Changes(modified=["/b"], deleted=["/d"], added=["/c"])
    assert explain_difference(left, right) == [
        "only in the left changes:",
        "  added    /a (file)",
        "only in the right changes:",
        "  deleted  /d",
        "changed otherwise:",
        "  /b: deleted != modified",
    ]


@given(CHANGES, CHANGES)
def test_a_difference_is_told_exactly_where_there_is_one(left: Changes, right: Changes) -> None:
    assert bool(explain_difference(left, right)) == (left != right)


@given(CHANGES, PATHS)
def test_below_and_without_are_each_others_rest(changes: Changes, path: str) -> None:
    assert Changes.of([*changes.below(path), *changes.without(path)]) == changes
    assert len(changes.below(path)) + len(changes.without(path)) == len(changes)


@given(CHANGES)
def test_changes_travel_and_read_back(changes: Changes) -> None:
    assert pickle.loads(pickle.dumps(changes)) == changes
    assert eval(repr(changes), {"Changes": Changes}) == changes
    assert all(Changes.of(order) == changes for order in permutations(list(changes)[:3] or [])) or len(changes) > 3
