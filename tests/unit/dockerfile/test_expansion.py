"""Variables in a Dockerfile's words: BuildKit's rules as a table, and sh and bash as the oracle where they agree."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.images.dockerfile.expansion import ExpansionError, expand, expand_words, raw_words
from pytest_sandbox_runtime.images.dockerfile.patterns import replace, strip_prefix, strip_suffix

VALUES = {"x": "value", "e": "", "p": "/usr/local/lib", "q": "a.b.c", "star": "a*b", "two": "1 2"}


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("$x", "value"),
        ("${x}", "value"),
        ("$x$x/${x}y", "valuevalue/valuey"),
        ("$xy", ""),
        ("$none", ""),
        ("${none:-d}", "d"),
        ("${none-d}", "d"),
        ("${e:-d}", "d"),
        ("${e-d}", ""),
        ("${x:-d}", "value"),
        ("${x:+d}", "d"),
        ("${e:+d}", ""),
        ("${e+d}", "d"),
        ("${none+d}", ""),
        ("${x:?m}", "value"),
        ("${e?m}", ""),
        ("${none:-${x}}", "value"),
        ("${none:-${none:-$x}}", "value"),
        ("${none:-'a b'}", "a b"),
        ('${none:-"$x"}', "value"),
        ("${p#*/}", "usr/local/lib"),
        ("${p##*/}", "lib"),
        ("${p%/*}", "/usr/local"),
        ("${p%%/*}", ""),
        ("${q#*.}", "b.c"),
        ("${q##*.}", "c"),
        ("${q%.*}", "a.b"),
        ("${q%%.*}", "a"),
        ("${q#?}", ".b.c"),
        ("${q#z}", "a.b.c"),
        ("${q/./-}", "a-b.c"),
        ("${q//./-}", "a-b-c"),
        ("${p//\\//_}", "_usr_local_lib"),
        ("${star#a\\*}", "b"),
        ("${none/a/b}", ""),
        ("${q/$none/-}", "a.b.c"),
        ("'$x'", "$x"),
        ('"$x"', "value"),
        ("\\$x", "$x"),
        ('"\\$x"', "$x"),
        ('"\\x"', "\\x"),
        ("\\x", "x"),
        ("a\\", "a"),
        ("\"a\" 'b' c", "a b c"),
        ('"it\'s"', "it's"),
        ("$", "$"),
        ("a$", "a$"),
        ("$/", "$/"),
        ("$1x", "x"),
        ("a<b", "a<b"),
        ("ünïcödé$x", "ünïcödévalue"),
    ],
)
def test_a_word_is_expanded(word: str, expanded: str) -> None:
    assert expand(word, VALUES) == expanded


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${x", "missing '}'"),
        ("${", "missing '}'"),
        ("${}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${{x}}", "bad substitution"),
        ("${x:-a", "missing '}'"),
        ("${x:#a}", "unsupported modifier (:#)"),
        ("${x@Q}", "unsupported modifier (@)"),
        ("${none:?}", "none: is not allowed to be unset"),
        ("${e:?}", "e: is not allowed to be empty"),
        ("${none?give it}", "none: give it"),
        ("${x/a}", "missing '/'"),
        ("${x#\\a}", "invalid escape"),
        ("'x", "single quote"),
        ('"x', "double quote"),
        ("${none:-" * 60 + "}" * 60, "too many substitutions"),
    ],
)
def test_what_cannot_be_expanded_says_why(word: str, message: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        expand(word, VALUES)
    assert message in str(caught.value)


def test_the_escape_character_can_be_a_backtick() -> None:
    assert expand("C:\\dir`$x", VALUES, escape="`") == "C:\\dir$x"


def test_a_heredoc_knows_no_quotes() -> None:
    assert expand("\"$x\" '$x' \\$x\n", VALUES, quotes=False) == "\"value\" 'value' $x\n"


def test_words_are_split_after_expansion_outside_of_quotes() -> None:
    assert expand_words("$two '3 4' \"$two\" a$two", VALUES) == ["1", "2", "3 4", "1 2", "a1", "2"]


def test_raw_words_keep_a_heredoc_and_its_name_together() -> None:
    assert raw_words("cat << 'A B' >x \"q r\"") == ["cat", "<< 'A B'", ">x", '"q r"']


# What sh(1) makes of the same word, in quotes so that it splits nothing.

NAMES = ("x", "e", "none")
# No letters beyond ASCII: in a Dockerfile they belong to a name before them, in sh(1) they do not.
LITERALS = st.text(alphabet="ab./-_: €", min_size=0, max_size=4)
OPERATORS = st.sampled_from(["-", ":-", "+", ":+"])
STRIPS = st.sampled_from(["#", "##", "%", "%%"])
PATTERNS = st.text(alphabet="ab.*?", min_size=1, max_size=5)
TEXTS = st.text(alphabet="ab.", max_size=6)


def words(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    chosen = st.builds(
        lambda name, operator, word: f"${{{name}{operator}{word}}}", st.sampled_from(NAMES), OPERATORS, inner
    )
    return st.lists(st.one_of(LITERALS, chosen, st.sampled_from(["$x", "${x}", "\\$", "\\\\"])), max_size=4).map(
        "".join
    )


def shell(program: str, script: str, **values: str) -> str:
    done = subprocess.run([program, "-c", script], env={**values, "LC_ALL": "C.UTF-8"}, capture_output=True, check=True)
    return done.stdout.decode()


@settings(max_examples=60, deadline=None)
@given(st.recursive(LITERALS, words, max_leaves=6), TEXTS)
def test_a_word_is_expanded_as_sh_does(word: str, value: str) -> None:
    values = {"x": value, "e": ""}
    assert expand(f'"{word}"', values) == shell("sh", f'printf %s "{word}"', **values)


@settings(max_examples=100, deadline=None)
@given(STRIPS, PATTERNS, TEXTS)
def test_patterns_are_stripped_as_sh_does(operator: str, pattern: str, value: str) -> None:
    word = f"${{x{operator}{pattern}}}"
    assert expand(word, {"x": value}) == shell("sh", f'printf %s "{word}"', x=value)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["/", "//"]), PATTERNS, LITERALS.map(lambda text: text.replace("/", "")), TEXTS)
def test_patterns_are_replaced_as_bash_does(operator: str, pattern: str, new: str, value: str) -> None:
    assert shutil.which("bash"), "the oracle"
    word = f"${{x{operator}{pattern}/{new}}}"
    if not value:
        return  # bash replaces an empty text by an empty match
    assert expand(word, {"x": value}) == shell("bash", f'printf %s "{word}"', x=value)


@given(TEXTS, PATTERNS)
def test_the_longest_match_is_no_shorter(value: str, pattern: str) -> None:
    for strip in (strip_prefix, strip_suffix):
        short, long = (strip(value, pattern, longest=longest) for longest in (False, True))
        assert len(long) <= len(short) <= len(value)


def test_patterns_take_time_in_proportion() -> None:
    start = time.process_time()
    strip_prefix("a" * 2000, "*a" * 30 + "b", longest=True)
    replace("a" * 300, "*a" * 30 + "b", "", everywhere=True)
    assert time.process_time() - start < 5


@given(st.text(), st.dictionaries(st.text(), st.text(), max_size=3))
def test_any_text_is_expanded_or_said_to_be_wrong(text: str, values: dict[str, str]) -> None:
    for quotes in (True, False):
        with contextlib.suppress(ExpansionError):
            assert isinstance(expand(text, values, quotes=quotes), str)
