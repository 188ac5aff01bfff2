"""What .dockerignore and --exclude leave out."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.dockerfile import Ignore, read
from pytest_sandbox_runtime.images.dockerfile.ignore import PatternError, parse_ignore_file
from pytest_sandbox_runtime.specs import Context, Copy


# The first group is Docker's documentation, the others moby's patternmatcher as its tests have it.
@pytest.mark.parametrize(
    ("patterns", "ignored", "kept"),
    [
        (["*/temp*"], ["a/temp", "a/temporary.txt", "a/temp/x"], ["temp", "a/b/temp"]),
        (["*/*/temp*"], ["a/b/temporary.txt"], ["a/temp", "a/b/c/temp"]),
        (["temp?"], ["tempa", "tempb", "tempa/x"], ["temp", "tempab"]),
        (["**/*.go"], ["a.go", "a/b.go", "a/b/c.go"], ["a.goo", "go"]),
        (["*.md", "!README.md"], ["a.md"], ["README.md", "docs/a.md"]),
        (["*.md", "!README*.md", "README-secret.md"], ["README-secret.md", "x.md"], ["README.md"]),
        (["*.md", "README-secret.md", "!README*.md"], ["x.md"], ["README-secret.md"]),
        (["*", "!src"], ["a", "a/src", "b/c"], ["src", "src/x/y"]),
        (["**"], ["a", "a/b"], []),
        (["**/"], ["a", "a/b"], []),
        (["a/**"], ["a/b", "a/b/c"], ["a", "ab"]),
        (["**/a"], ["a", "b/a", "b/c/a", "b/a/c"], ["ba", "b/ba"]),
        (["**a"], ["a", "ba", "b/a", "b/ba"], ["ab"]),
        (["a**b"], ["ab", "ac/b", "ac/d/b"], ["a", "acb"]),
        (["a/**/b"], ["a/b", "a/c/b", "a/c/d/b"], ["ab", "a"]),
        (["**/a/*.b"], ["a/x.b", "c/a/x.b"], ["a/c/x.b"]),
        (["dir"], ["dir", "dir/a", "dir/a/b"], ["dirs", "a/dir"]),
        (["dir/", "/top", "./here", "a//b", "c/../d"], ["dir", "top", "here", "a/b", "d"], ["c"]),
        (["[a-c]x"], ["ax", "bx"], ["dx", "x"]),
        (["[^a-c]x"], ["dx"], ["ax"]),
        (["a[\\]]b"], ["a]b"], ["ab"]),
        (["a\\*b"], ["a*b"], ["axb"]),
        (["a.b+c(d)|{e}$"], ["a.b+c(d)|{e}$"], ["axb"]),
        (["x", "!x/y", "x/y/z"], ["x/a", "x/y/z"], ["x/y", "x/y/a"]),
        (["../x"], [], ["x"]),
        (["."], [], ["a", "."]),
        ([], [], ["a"]),
    ],
)
def test_patterns_match_as_docker_has_them(patterns: list[str], ignored: list[str], kept: list[str]) -> None:
    ignore = Ignore(parse_ignore_file("\n".join(patterns)))
    assert [path for path in ignored if not ignore.ignores(path)] == []
    assert [path for path in kept if ignore.ignores(path)] == []


def test_an_ignore_file_has_comments_spaces_and_a_mark_of_its_encoding() -> None:
    text = "\ufeffa\n# no\n\n  b  \n #c\n! d\n!\\#e\r\n"
    assert parse_ignore_file(text) == ["a", "b", "#c", "!d", "!\\#e"]


@pytest.mark.parametrize("pattern", ["[", "a[", "[]", "[^]", "[a-]", "[-a]", "!", "[z-a]", "[a"])
def test_a_pattern_that_cannot_be_is_said(pattern: str) -> None:
    with pytest.raises(PatternError):
        Ignore([pattern])


def test_a_pattern_that_cannot_be_is_said_with_its_file(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("ok\n[\n")
    with pytest.raises(ImageError, match=re.escape(f"{tmp_path}/.dockerignore: the pattern '['")):
        Ignore.read(Context.of(str(tmp_path)))


@pytest.mark.parametrize(
    ("patterns", "directory", "prunes"),
    [
        (["a"], "a", True),
        (["a"], "b", False),
        (["a", "!a/b/c"], "a", False),
        (["a", "!a/b/c"], "a/b", False),
        (["a", "!a/b/c"], "a/x", True),
        (["a", "!**/c"], "a", False),
        (["a", "!a*/c"], "a", False),
        (["*", "!b"], "a", True),
    ],
)
def test_a_directory_is_passed_over_where_nothing_in_it_is_kept(
    patterns: list[str], directory: str, *, prunes: bool
) -> None:
    assert Ignore(patterns).prunes(directory) is prunes


def test_the_file_named_after_the_dockerfile_comes_first(tmp_path: Path) -> None:
    for name, text in {
        "Dockerfile": "FROM scratch\nCOPY . /x",
        "b.Dockerfile": "FROM scratch\nCOPY . /x",
        ".dockerignore": "common",
        "b.Dockerfile.dockerignore": "own",
    }.items():
        (tmp_path / name).write_text(text)
    found = []
    for name in ("Dockerfile", "b.Dockerfile"):
        (layer,) = read(tmp_path / name).layers
        assert isinstance(layer, Copy)
        assert layer.context is not None
        ignore = Ignore.read(layer.context)
        found.append((ignore.ignores("common"), ignore.ignores("own")))
    assert found == [(True, False), (False, True)]


def test_without_an_ignore_file_nothing_is_ignored(tmp_path: Path) -> None:
    assert not Ignore.read(Context.of(str(tmp_path))).ignores("a")


NAMES = st.text(alphabet="ab.", min_size=1, max_size=3).filter(lambda name: name.strip("."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@given(PATHS, PATHS)
def test_what_lies_below_an_ignored_path_is_ignored(path: str, below: str) -> None:
    assert Ignore([path]).ignores(f"{path}/{below}")


@given(PATHS, st.lists(PATHS, max_size=3))
def test_what_is_taken_back_last_is_kept(path: str, patterns: list[str]) -> None:
    assert not Ignore([*patterns, f"!{path}"]).ignores(path)


@given(st.lists(st.text(alphabet="a*?/![]-^\\.", min_size=1, max_size=6), max_size=4), PATHS, PATHS)
def test_what_is_pruned_has_nothing_that_is_kept(patterns: list[str], directory: str, below: str) -> None:
    try:
        ignore = Ignore(patterns)
    except PatternError:
        return
    if ignore.prunes(directory):
        assert ignore.ignores(f"{directory}/{below}")


@given(st.text(max_size=12), PATHS)
def test_any_pattern_matches_or_is_said_to_be_wrong(pattern: str, path: str) -> None:
    with contextlib.suppress(PatternError):
        assert Ignore(parse_ignore_file(pattern)).ignores(path) in (True, False)
