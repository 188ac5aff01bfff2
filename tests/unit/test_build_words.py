"""What builds read of strangers, in any text: modes, owners, requirements, records. Read as tools do, or refused."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError, SpecError
from pytest_sandbox_runtime.images.building.modes import apply_mode
from pytest_sandbox_runtime.images.building.owners import owner_of
from pytest_sandbox_runtime.images.records import Record, Records
from pytest_sandbox_runtime.lowers import MergedTree
from pytest_sandbox_runtime.specs.checks import check_mode, check_owner
from pytest_sandbox_runtime.specs.requirements import files_of

if TYPE_CHECKING:
    from pathlib import Path

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CLAUSES = st.builds(
    lambda who, actions: who + "".join(actions),
    st.text("ugoa", max_size=3),
    st.lists(st.from_regex(r"[-+=]([rwxXst]{0,4}|[ugo])", fullmatch=True), min_size=1, max_size=2),
)
MODES = st.lists(CLAUSES, min_size=1, max_size=3).map(",".join)


@QUICK
@given(MODES, st.integers(0, 0o7777), st.booleans())
@example("u=rwx,g=u,o=", 0o640, False)
def test_a_mode_changes_as_chmod_changes_it(tmp_path: Path, mode: str, before: int, is_directory: bool) -> None:
    check_mode(mode)
    path = tmp_path / ("directory" if is_directory else "file")
    if is_directory:
        path.mkdir(exist_ok=True)
    else:
        path.touch()
    path.chmod(before)
    subprocess.run(["chmod", "--", mode, path], check=True, umask=0)
    assert format(apply_mode(mode, before, is_directory=is_directory), "o") == format(
        stat.S_IMODE(path.stat().st_mode), "o"
    )


@given(st.one_of(st.text(max_size=8), st.text("ugoa+-=rwxXst,0179", max_size=8)), st.integers(0, 0o7777))
def test_any_text_is_a_mode_or_refused(text: str, before: int) -> None:
    try:
        check_mode(text)
    except SpecError:
        return
    assert 0 <= apply_mode(text, before) <= 0o7777


NAMES = st.one_of(
    st.text(max_size=6), st.sampled_from(["root", "app", "12", "\u00b2", "\u0661", ":", "::", "-1", "app:", ":x"])
)
LINES = st.lists(st.lists(NAMES, max_size=8).map(":".join), max_size=4).map("\n".join)


@QUICK
@given(NAMES, LINES, LINES)
@example("\u00b2", "", "")
@example("app", "app:x:\u00b2:\u0661::", "")
def test_any_owner_is_found_or_refused_whatever_the_image_says(
    tmp_path: Path, said: str, passwd: str, group: str
) -> None:
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/passwd").write_text(passwd, errors="surrogateescape")
    (tmp_path / "etc/group").write_text(group, errors="surrogateescape")
    try:
        check_owner(said)
        uid, gid = owner_of(said, MergedTree((str(tmp_path),)))
    except (ImageError, SpecError):
        return
    assert 0 <= uid < 1 << 32
    assert 0 <= gid < 1 << 32


@QUICK
@given(
    st.lists(
        st.one_of(
            st.text(max_size=8),
            st.sampled_from(["-r ", "-c", "--requirement=", "\n", "#", "\0", "../", "x", "://", "${"]),
        )
    ).map("".join)
)
@example("-r \0")
def test_any_requirements_file_names_files_or_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    found = files_of(str(path))
    assert str(path) in found
    assert all(os.path.isabs(file) for file in found)


RECORD = Record(notes_json='{"a":1}', diff_id="sha256:" + "0" * 64).to_bytes("key")


@QUICK
@given(
    st.one_of(
        st.binary(),
        st.builds(
            lambda at, data: RECORD[:at] + data + RECORD[at + 1 :], st.integers(0, len(RECORD)), st.binary(max_size=2)
        ),
    )
)
def test_any_record_is_read_or_unknown(tmp_path: Path, data: bytes) -> None:
    records = Records(str(tmp_path))
    records.remember("key", Record())
    (path,) = tmp_path.glob("*.json")
    path.write_bytes(data)
    record = records.recall("key")
    assert record is None or isinstance(record.notes, dict)
    assert len(list(records.all())) == (record is not None)
