"""Variables in values: the specification's forms as a table, and sh as the oracle where it means the same."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sandbox_runtime.compose.interpolation import InterpolationError, expand

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import Project

VALUES = {"x": "value", "e": "", "dollar": "$x"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$x", "value"),
        ("${x}", "value"),
        ("$x-${x}$x", "value-valuevalue"),
        ("$xy", ""),
        ("$x.y", "value.y"),
        ("${none}", ""),
        ("${none:-d}", "d"),
        ("${none-d}", "d"),
        ("${e:-d}", "d"),
        ("${e-d}", ""),
        ("${x:-d}", "value"),
        ("${x:+d}", "d"),
        ("${e:+d}", ""),
        ("${e+d}", "d"),
        ("${none+d}", ""),
        ("${none:+d}", ""),
        ("${x:?m}", "value"),
        ("${e?m}", ""),
        ("${none:-}", ""),
        ("${none:-${x}}", "value"),
        ("${none:-$x}", "value"),
        ("${none-${none2:-${x}}}", "value"),
        ("${none:-a ${x} b $x}", "a value b value"),
        ("${e:-/non:-alphanumeric}", "/non:-alphanumeric"),
        ("${none:-http://h:80/?a=b}", "http://h:80/?a=b"),
        ('${none:-{"a": {"b": 1}}}', '{"a": {"b": 1}}'),
        ("${x:+${none:?not looked at}}", None),
        ("${none:+${none:?not looked at}}", ""),
        ("${x:-${none:?not looked at}}", "value"),
        ("$$x", "$x"),
        ("$$$x", "$value"),
        ("$$$$", "$$"),
        ("$${x}", "${x}"),
        ("${none:-$$x}", "$x"),
        ("$dollar", "$x"),
        ("${none:-$dollar}", "$x"),
        ("$", "$"),
        ("a $ b", "a $ b"),
        ("$1", "$1"),
        ("^.*$", "^.*$"),
        ("${x}}", "value}"),
        ("ä${x}ö", "ävalueö"),
    ],
)
def test_a_text_has_its_variables_put_in(text: str, expanded: str | None) -> None:
    if expanded is None:
        with pytest.raises(InterpolationError, match="the variable none is required: not looked at"):
            expand(text, VALUES)
    else:
        assert expand(text, VALUES) == expanded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${x", "'${x' has no closing brace"),
        ("a ${none:-${x}", "'${none:-${x}' has no closing brace"),
        ("${}", "${} is no variable"),
        ("${ x}", "${ x} is no variable"),
        ("${x }", "${x } is no variable"),
        ("${x!}", "${x!} is no variable"),
        ("${1}", "${1} is no variable"),
        ("${x/a/b}", "${x/a/b} is no variable"),
        ("${x:}", "${x:} is no variable"),
        ("${none:?}", "the variable none is required"),
        ("${none?}", "the variable none is required"),
        ("${e:?say e}", "the variable e is required: say e"),
        ("${none?for ${x}}", "the variable none is required: for value"),
    ],
)
def test_what_is_begun_and_no_variable_is_said(text: str, message: str) -> None:
    with pytest.raises(InterpolationError) as caught:
        expand(text, VALUES)
    assert str(caught.value) == message


def test_who_asks_hears_of_variables_without_value_and_default_only() -> None:
    unset: list[str] = []
    expand("$none ${none2:-d} ${none3:+$none4} ${none5:-$none6} $e $x", VALUES, unset.append)
    assert unset == ["none", "none6"]


def test_no_depth_is_too_much_for_the_stack() -> None:
    with pytest.raises(InterpolationError, match="the variables are nested too deeply"):
        expand("${a:-" * 5000 + "}" * 5000, {})


NAMES = st.sampled_from(["x", "e", "none"])
TEXTS = st.recursive(
    st.one_of(st.sampled_from(["a", "b-", ":", "/", " "]), NAMES.map(lambda name: f"${{{name}}}")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.builds("${{{}{}{}}}".format, NAMES, st.sampled_from([":-", "-", ":+", "+"]), inner),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_a_text_means_what_it_means_to_a_shell(text: str) -> None:
    said = subprocess.run(["sh", "-c", f'printf %s "{text}"'], env=VALUES, capture_output=True, text=True, check=True)
    assert expand(text, VALUES) == said.stdout


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_with_its_dollars_doubled(text: str) -> None:
    assert expand(text.replace("$", "$$"), VALUES) == text


@given(st.text(alphabet="${}:-?+xe "))
def test_no_text_fails_in_another_way(text: str) -> None:
    try:
        expand(text, VALUES)
    except InterpolationError:
        return


def test_values_have_their_variables_and_keys_have_none(read: Callable[..., Project]) -> None:
    project = read('services: {web: {image: "$x", labels: {"$x": "$x"}}}', environ=VALUES)
    assert project.service("web").image == "value"
    assert project.service("web").labels == (("$x", "value"),)
