"""A Dockerfile's text as statements: continuations, comments, directives, heredocs; and any text at all."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import DockerfileError
from pytest_sandbox_runtime.images.dockerfile import read_text
from pytest_sandbox_runtime.images.dockerfile.flags import FLAGS
from pytest_sandbox_runtime.images.dockerfile.instructions import KEYWORDS
from pytest_sandbox_runtime.images.dockerfile.lexer import read_statements
from pytest_sandbox_runtime.images.dockerfile.words import json_list, pairs_of, split_statement, words_of
from pytest_sandbox_runtime.specs import Image


def texts(text: str) -> list[tuple[int, str]]:
    return [(statement.line, statement.text) for statement in read_statements(text, "Dockerfile").statements]


def heredocs(text: str) -> list[tuple[str, str, bool]]:
    (statement,) = read_statements(text, "Dockerfile").statements
    return [(heredoc.name, heredoc.text, heredoc.expand) for heredoc in statement.heredocs]


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("FROM a\nRUN b\n", [(1, "FROM a"), (2, "RUN b")]),
        ("\n\n  FROM a  \n\n\tRUN b", [(3, "FROM a"), (5, "RUN b")]),
        ("FROM a\r\nRUN b \\\r\n c\r\n", [(1, "FROM a"), (2, "RUN b  c")]),
        ("\ufeffFROM a", [(1, "FROM a")]),
        ("RUN a \\\n  b \\\n  c", [(1, "RUN a   b   c")]),
        ("RUN a\\\nb", [(1, "RUN ab")]),
        ("RUN a \\  \n b", [(1, "RUN a  b")]),
        ("RUN a \\\n# no\n  # no\n b", [(1, "RUN a  b")]),
        ("RUN a \\\n\n\n b\nRUN c", [(1, "RUN a  b"), (5, "RUN c")]),
        ("RUN a \\\n# no", [(1, "RUN a")]),
        ("RUN a \\\\\nRUN b", [(1, "RUN a \\\\"), (2, "RUN b")]),
        ("RUN a # stays", [(1, "RUN a # stays")]),
        ("# no\\\nRUN b", [(2, "RUN b")]),
        ("\\\nRUN b", [(1, "RUN b")]),
        ("R\\\nUN b", [(1, "RUN b")]),
        ("# escape=`\nRUN a `\n b\\\nRUN c", [(2, "RUN a  b\\"), (4, "RUN c")]),
        ("#escape = `\nRUN a `\n b", [(2, "RUN a  b")]),
        ("# comment\n# escape=`\nRUN a `\nRUN b", [(3, "RUN a `"), (4, "RUN b")]),
        ("\n# escape=`\nRUN a `\nRUN b", [(3, "RUN a `"), (4, "RUN b")]),
        ("# syntax=docker/dockerfile:1\n# escape=`\nRUN a `\n b", [(3, "RUN a  b")]),
    ],
)
def test_lines_become_statements(text: str, statements: list[tuple[int, str]]) -> None:
    assert texts(text) == statements


def test_the_syntax_line_is_known() -> None:
    assert read_statements("# syntax = docker/dockerfile:1.7\nFROM a", "Dockerfile").syntax == "docker/dockerfile:1.7"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("RUN <<EOF\na\nb\nEOF\n", [("EOF", "a\nb\n", True)]),
        ("RUN <<'EOF'\n$a\nEOF", [("EOF", "$a\n", False)]),
        ('RUN <<"EOF"\n$a\nEOF', [("EOF", "$a\n", False)]),
        ('RUN <<E"O"F\n$a\nEOF', [("EOF", "$a\n", False)]),
        ("RUN <<-EOF\n\ta\n\t\tb\n\tEOF", [("EOF", "a\nb\n", True)]),
        ("RUN << EOF\na\nEOF", [("EOF", "a\n", True)]),
        ("RUN <<EOF\nEOF", [("EOF", "", True)]),
        ("RUN <<EOF\n# kept \\\nEOF", [("EOF", "# kept \\\n", True)]),
        ("RUN <<A cat <<B\n1\nA\n2\nB", [("A", "1\n", True), ("B", "2\n", True)]),
        ("RUN 3<<EOF cat\na\nEOF", [("EOF", "a\n", True)]),
        ("RUN cat <<EOF | tr a b\na\nEOF", [("EOF", "a\n", True)]),
        ("COPY <<a <<b /x/\n1\na\n2\nb", [("a", "1\n", True), ("b", "2\n", True)]),
        ("ONBUILD COPY <<a /x/\n1\na", [("a", "1\n", True)]),
        ("RUN echo $((1<<2))", []),
        ("RUN cat <<<EOF", []),
        ("RUN ['<<EOF']", []),
        ('RUN ["cat", "<<EOF"]', []),
        ("RUN echo \"it's <<EOF", []),
        ("CMD cat <<EOF", []),
        ("ENV a=<<EOF", []),
    ],
)
def test_heredocs_are_attached(text: str, found: list[tuple[str, str, bool]]) -> None:
    assert heredocs(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f: there is no instruction in it\n  hint: it begins with FROM"),
        ("# only this\n\n", "f: there is no instruction in it"),
        ("FROM a\n\nRUN <<EOF\nx\n", "f:3: the heredoc EOF is not closed"),
        ("# escape=x\nFROM a", "f:1: 'x' is no escape character"),
        ("# escape=`\n# escape=`\nFROM a", "f:2: a second escape directive"),
        ("FROM a\nCMD [1]", "f:2: CMD: a JSON list here holds strings only"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        read_statements(text, "f")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("RUN a b", ("RUN", (), "a b")),
        ("run\t--network=none  a", ("RUN", ("--network=none",), "a")),
        ("COPY --chown=a:b --from=c d e", ("COPY", ("--chown=a:b", "--from=c"), "d e")),
        ('COPY --chown="a b" c d', ("COPY", ("--chown=a b",), "c d")),
        ("COPY --x=a\\ b c", ("COPY", ("--x=a b",), "c")),
        ("RUN -- --a b", ("RUN", (), "--a b")),
        ("RUN -x --a", ("RUN", (), "-x --a")),
        ("RUN", ("RUN", (), "")),
    ],
)
def test_a_statement_has_a_keyword_flags_and_a_rest(text: str, parts: tuple[str, tuple[str, ...], str]) -> None:
    assert split_statement(text, "\\") == parts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  b", ["a", "b"]),
        ("'a b' \"c d\"e", ["'a b'", '"c d"e']),
        ("a\\ b c", ["a\\ b", "c"]),
        ('"a\\" b" c', ['"a\\" b"', "c"]),
        ("'a\\' b", ["'a\\'", "b"]),
        ("a\\", ["a"]),
        ("'' a", ["''", "a"]),
        ("a'b", ["a'b"]),
    ],
)
def test_words_are_split_outside_of_quotes(text: str, words: list[str]) -> None:
    assert words_of(text, "\\") == words


def test_the_older_form_of_env_takes_the_rest_of_the_line() -> None:
    assert pairs_of("name  a value = this", "\\") == [("name", "a value = this")]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("[]", []),
        ("[ -f /x ] && y", None),
        ("['a']", None),
        ('["a"] b', None),
        ("[" * 100_000, None),
        ('["\\ud83d\\ude00", "\\ud800"]', ["\N{GRINNING FACE}", "\ufffd"]),
    ],
)
def test_a_json_list_is_told_from_a_line_for_the_shell(text: str, values: list[str] | None) -> None:
    assert json_list(text) == values


PIECES = st.one_of(
    st.sampled_from(KEYWORDS),
    st.sampled_from([f"--{name}" for flags in FLAGS.values() for name in flags]),
    st.sampled_from(["--mount=type=cache,target=/x", "--mount=type=bind,from=0,target=y", "--from=a", "--from=1"]),
    st.sampled_from(["FROM a", "FROM a AS b", "FROM scratch", "FROM b\n", "AS", "CMD", "NONE", "ONBUILD RUN x"]),
    st.sampled_from(
        ["\n", "\\\n", "\r\n", " ", "\t", "=", ",", "#", "# escape=`\n", "<<E", "<<-E", "\nE\n", "[", '["a"]']
    ),
    st.sampled_from(["$x", "${x", "${x:-", "${x%", "}", "'", '"', "\\", "/", "80", "http://a/b", "1s", "x=1", "\0"]),
    st.text(max_size=3),
)


def read_or_refuse(text: str) -> None:
    try:
        image = read_text(text)
    except DockerfileError as error:
        refusal: str | None = str(error)
    else:
        refusal = None
        assert isinstance(image, Image)
        assert repr(image)
        assert image.key()
    assert refusal is None or refusal.startswith("Dockerfile")


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join))
@example("FROM a\nHEALTHCHECK")
@example("FROM a\nONBUILD")
@example("FROM a\nSTOPSIGNAL \u0661")
@example("FROM a\nHEALTHCHECK --retries=\u00b2 CMD x")
@example("FROM a\nEXPOSE \u0661")
@example("FROM a\nRUN --mount=type=tmpfs,target=/x,size=\u0661 x")
@example("FROM a\nCOPY --from=\u00b2 a b")
def test_any_text_is_read_or_refused(text: str) -> None:
    read_or_refuse(text)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=20).map("".join))
def test_any_text_behind_from_is_read_or_refused(text: str) -> None:
    read_or_refuse("FROM a AS a\nFROM a\n" + text)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_mere_noise_is_read_or_refused(text: str) -> None:
    read_or_refuse(text)
