"""YAML as nodes that know their places: anchors, merges, tags, and what is refused."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.compose.loader import read_nodes
from pytest_sandbox_runtime.compose.nodes import Node, Source, plain
from pytest_sandbox_runtime.errors import ComposeError

SOURCE = Source("f.yaml", "/")


def node(text: str) -> Node:
    (root,) = read_nodes(text, SOURCE)
    return root


def said(text: str) -> str:
    with pytest.raises(ComposeError) as caught:
        read_nodes(text, SOURCE)
    return str(caught.value)


def test_values_have_the_types_of_yaml_1_2() -> None:
    text = "{a: no, b: true, c: 22:22, d: 0755, e: 1.5, f: , g: '5', h: [x, 1]}"
    assert plain(node(text)) == {
        "a": "no", "b": True, "c": "22:22", "d": 493, "e": 1.5, "f": None, "g": "5", "h": ["x", 1],
    }  # fmt: skip


def test_a_value_stands_where_its_key_does_and_an_item_where_it_does() -> None:
    root = node("a:\n  b:\n    - x\n    - c: |\n        text\n")
    places = {}

    def walk(part: Node) -> None:
        places[part.place.key] = (part.place.line, part.place.column)
        for child in (*part.entries.values(), *part.items):
            walk(child)

    walk(root)
    assert places == {"": (1, 1), "a": (1, 1), "a.b": (2, 3), "a.b[0]": (3, 7), "a.b[1]": (4, 7), "a.b[1].c": (4, 7)}


def test_a_merge_gives_way_to_what_is_said_and_keeps_its_own_place() -> None:
    root = node("x: &x {a: 1, b: 1}\ny:\n  b: 2\n  <<: *x\n  c: 3\n")
    assert plain(root.entries["y"]) == {"a": 1, "b": 2, "c": 3}
    merged = root.entries["y"].entries["a"].place
    assert (merged.line, merged.key) == (1, "y.a")


def test_the_first_of_several_merges_counts() -> None:
    root = node("x: &x {a: 1}\ny: &y {a: 2, b: 2}\nz: {<<: [*x, *y]}\n")
    assert plain(root.entries["z"]) == {"a": 1, "b": 2}


def test_a_merge_of_a_merge_is_one_too() -> None:
    root = node("x: &x {a: 1}\ny: &y {<<: *x, b: 2}\nz: {<<: *y, c: 3}\n")
    assert plain(root.entries["z"]) == {"a": 1, "b": 2, "c": 3}


def test_a_quoted_key_of_two_angles_is_a_key() -> None:
    assert plain(node("'<<': {a: 1}")) == {"<<": {"a": 1}}


def test_tags_of_yaml_say_what_a_text_is() -> None:
    assert plain(node("{a: !!str 5, b: !!int '5', c: !!float 5, d: !!bool 'true', e: !!null ''}")) == {
        "a": "5", "b": 5, "c": 5, "d": True, "e": None,
    }  # fmt: skip


def test_tags_of_compose_stay_with_their_values() -> None:
    root = node("{a: !reset null, b: !override [x], c: !override 5, d: !reset }")
    assert [(entry.action, plain(entry)) for entry in root.entries.values()] == [
        ("reset", None), ("override", ["x"]), ("override", 5), ("reset", None),
    ]  # fmt: skip


def test_documents_are_read_one_after_the_other() -> None:
    assert [plain(root) for root in read_nodes("a: 1\n---\n---\nb: 2\n", SOURCE)] == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2", "f.yaml:2:2: while parsing a flow sequence, did not find expected ',' or ']'"),
        ("a: *b", "f.yaml:1:4: found undefined alias"),
        ("\ta: 1", "f.yaml:1:1: while scanning for the next token, found character that cannot start any token"),
    ],
)
def test_what_is_no_yaml_is_said_at_its_place(text: str, message: str) -> None:
    # The words are libyaml's, or those of its twin in Python.
    place = message.split(": ", maxsplit=1)[0]
    assert said(text).startswith(f"{place}: ")
    assert said(text).endswith("\n  hint: the file is no YAML")
    if find_spec("yaml._yaml") is not None:
        assert said(text) == f"{message}\n  hint: the file is no YAML"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1: a: stands here again, after line 1"),
        ("a:\n  80: x", 'f.yaml:2:3: a: the key 80 is no text\n  hint: write it in quotes: "80"'),
        ("true: x", 'f.yaml:1:1: the key true is no text\n  hint: write it in quotes: "true"'),
        ("[a, b]: x", 'f.yaml:1:1: the key a sequence is no text\n  hint: write it in quotes: "a sequence"'),
        ("a: !x 1", "f.yaml:1:4: a: the tag !x means nothing here\n  hint: there are !reset and !override"),
        ("a: !!int x", "f.yaml:1:1: a: 'x' is no !!int\n  hint: there are !!str, !!int, !!float, !!bool and !!null"),
        ("a: !!set {x}", "f.yaml:1:4: a: a mapping cannot have the tag !!set"),
        ("a: {<<: [b]}", "f.yaml:1:10: a: << merges mappings only"),
        ("a: &a [*a]", "f.yaml:1:4: a[0]: is an alias of what it is in itself"),
        ("a: &a {<<: *a}", "f.yaml:1:1: a: is an alias of what it is in itself"),
    ],
)
def test_what_no_compose_file_may_hold_is_said_at_its_place(text: str, message: str) -> None:
    assert said(text) == message


def test_aliases_that_multiply_are_stopped() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    message = said("\n".join(lines))
    assert message.endswith("there are more than 100000 values\n  hint: aliases of aliases multiply what they name")


def test_no_depth_is_too_much_for_the_stack() -> None:
    assert said("[" * 3000 + "]" * 3000).startswith("f.yaml")


@given(st.text(alphabet="ab01:-?[]{}&*!<>#'\"|%@`,.~\n\t \0\u2028é"))
def test_no_text_fails_in_another_way(text: str) -> None:
    with contextlib.suppress(ComposeError):
        read_nodes(text, SOURCE)
